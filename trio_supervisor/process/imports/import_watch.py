"""Record the line that an import is at, for the controller that waits for it.

The report is an anonymous file that the controller holds. A thread writes the stack of
the import to it every second. While C code holds the GIL, it cannot: then the watchdog
of faulthandler does, which reads the stacks without the GIL. That is safe only while
they do not change, so the thread puts the watchdog off each time it runs. A fatal
signal, and each call that can end or replace this process, writes the current stack.
Standard library only.
"""

from __future__ import annotations

import _thread
import faulthandler
import fcntl
import functools
import os
import posix
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, ModuleType
from typing import Any, Final

_INTERVAL: Final = 1.0
"""Time between two stack records [s]."""
_GIL_HELD: Final = 3.0
"""The GIL is taken to be held by C code when the thread did not run for so long [s]."""
_ENDING: Final[tuple[tuple[ModuleType, str], ...]] = (
    (os, "_exit"),
    (os, "kill"),
    (os, "killpg"),
    (os, "execv"),
    (os, "execve"),
    (signal, "raise_signal"),
    (signal, "pthread_kill"),
)
"""Functions that can end or replace a process without an exception."""
_FORKING: Final = ("fork", "forkpty")
# Saved now: the application's own calls of these functions are intercepted, or replaced
# by those of gevent.
_start_thread: Final = _thread.start_new_thread
_Lock: Final = _thread.allocate_lock
_dump_later: Final = faulthandler.dump_traceback_later
_cancel_later: Final = faulthandler.cancel_dump_traceback_later
_THREAD_EXIT: Final = 500
"""How long faulthandler's thread may take to exit [ms]."""
_LONGEST: Final = 100
"""Lines of a record; faulthandler writes as many frames."""
_HIGH: Final = 1000
_ROOM: Final = 8
_STDLIB: Final = os.path.dirname(os.__file__) + os.sep
_TAKING_OVER: Final = ("enable", "dump_traceback_later")
"""Calls by which the application takes over faulthandler."""


def open_report() -> int:
    """Return the descriptor of a new report."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("trio_supervisor import")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    # O_APPEND: after the reader has truncated it, writing continues at the new end.
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND | os.O_RDWR)
    return descriptor


@contextmanager
def record_import(report: int) -> Iterator[ImportRecord]:
    """Record the stacks of this process in *report* within the block."""
    record = ImportRecord(report)
    record.begin()
    try:
        yield record
    finally:
        record.end()


class ImportRecord:
    """The record of one import; made by `record_import`."""

    def __init__(self, report: int) -> None:
        self.forked_at = ""
        """The line of the last fork in the import, such as ``service.py, line 3``."""
        self._given = report
        self._identity = _identity_of(report)
        self._report = _duplicate_high(report)
        self._process_id = posix.getpid()
        self._import_thread = _thread.get_ident()
        self._ticker: _Ticker | None = None
        self._was_enabled = faulthandler.is_enabled()
        self._watchdog: set[str] = set()
        """Number of faulthandler's thread."""
        self._taken_over: set[str] = set()
        self._is_on = False
        self._wrapped: list[tuple[ModuleType, str, Any, Any]] = []

    def begin(self) -> None:
        """Start recording."""
        if not self._was_enabled:
            faulthandler.enable(file=self._report)
        self._begin_records()
        self._is_on = True
        for module, name in _ENDING:
            self._wrap(module, name, self._record)
        for name in _FORKING:
            self._wrap(os, name, self._before_fork, self._after_fork)
        for name in _TAKING_OVER:
            self._wrap(
                faulthandler, name, functools.partial(self._taken_over.add, name)
            )

    def end(self) -> None:
        """Stop recording; keep what the import has changed itself."""
        self._is_on = False
        if posix.getpid() != self._process_id:
            return
        for module, name, original, wrapper in self._wrapped:
            if getattr(module, name, None) is wrapper:
                setattr(module, name, original)
        # The application's own use of faulthandler stays in place.
        self._end_records()
        if not self._was_enabled and "enable" not in self._taken_over:
            faulthandler.disable()

    def close(self) -> None:
        """Close the report, unless the import has reused its number."""
        for descriptor in {self._given, self._report}:
            if _identity_of(descriptor) == self._identity:
                posix.close(descriptor)

    def _begin_records(self) -> None:
        self._put_off()
        self._ticker = _Ticker(self._tick)

    def _end_records(self) -> None:
        own = set()
        if self._ticker is not None:
            self._ticker.stop()
            own.add(self._ticker.number)
            self._ticker = None
        own |= self._watchdog
        if "dump_traceback_later" not in self._taken_over:
            _cancel_later()
        # The calls return before the threads are gone; `fork_findings` would take them
        # for threads of the import.
        for _ in range(_THREAD_EXIT):
            if not own & _threads():
                break
            time.sleep(0.001)

    def _tick(self) -> None:
        self._put_off()
        frame = sys._current_frames().get(self._import_thread)
        posix.write(self._report, _record_of(frame))

    def _put_off(self) -> None:
        """Make the watchdog wait again."""
        if "dump_traceback_later" not in self._taken_over:
            before = _threads()
            _dump_later(_GIL_HELD, repeat=True, file=self._report)
            self._watchdog = _threads() - before

    def _wrap(
        self,
        module: ModuleType,
        name: str,
        before: Callable[[], object],
        after: Callable[[], object] = lambda: None,
    ) -> None:
        original = getattr(module, name)

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._is_watching():
                return original(*args, **kwargs)
            with suppress(Exception):
                before()
            try:
                return original(*args, **kwargs)
            finally:
                if self._is_watching():
                    after()

        setattr(module, name, call)
        self._wrapped.append((module, name, original, call))

    def _record(self) -> None:
        faulthandler.dump_traceback(file=self._report, all_threads=False)

    def _is_watching(self) -> bool:
        return self._is_on and posix.getpid() == self._process_id

    def _before_fork(self) -> None:
        # The child has no such thread, and would wait for it forever.
        self._end_records()
        frame = sys._getframe(2)
        while frame.f_back and frame.f_code.co_filename.startswith(_STDLIB):
            frame = frame.f_back
        name = os.path.basename(frame.f_code.co_filename)
        self.forked_at = f"{name}, line {frame.f_lineno}"

    def _after_fork(self) -> None:
        self._begin_records()


class _Ticker:
    """A thread that calls *tick* every second; not known to `threading`."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self.number = ""
        self._stopped, self._ended = _Lock(), _Lock()
        self._stopped.acquire()
        self._ended.acquire()
        try:
            _start_thread(self._run, ())
        except RuntimeError:  # the limit of threads
            self._ended.release()

    def stop(self) -> None:
        """Return when it calls no more."""
        self._stopped.release()
        self._ended.acquire()

    def _run(self) -> None:
        self.number = str(_thread.get_native_id())
        try:
            while not self._stopped.acquire(timeout=_INTERVAL):
                with suppress(Exception):
                    self._tick()
        finally:
            self._ended.release()


def _record_of(frame: FrameType | None) -> bytes:
    """Return the stack of *frame*, as faulthandler writes it."""
    lines = ["Timeout!", "Thread of the import (most recent call first):"]
    while frame is not None and len(lines) < _LONGEST:
        code = frame.f_code
        lines.append(
            f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_name}'
        )
        frame = frame.f_back
    return "\n".join([*lines, ""]).encode("ascii", "backslashreplace")


def _identity_of(descriptor: int) -> tuple[int, int] | None:
    try:
        found = posix.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _threads() -> set[str]:
    try:
        return set(posix.listdir("/proc/self/task"))
    except OSError:  # not Linux
        return set()


def _duplicate_high(descriptor: int) -> int:
    """Return a copy of *descriptor* with a high number, unlikely to be reused.

    C code may close all descriptors. faulthandler keeps writing to the number that it
    was given, which may then be a file of the application: new files get the lowest
    free number.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    high = _HIGH if soft == resource.RLIM_INFINITY else min(soft - _ROOM, _HIGH)
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, max(high, 0))
    except OSError:
        return descriptor
