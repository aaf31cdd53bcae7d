"""Get the stacks of a worker that cannot run any Python code.

A black box is an anonymous file that the controller holds and the worker inherits. The
worker's faulthandler writes stacks to it on a fatal signal, and when the controller
sends another signal. That works even while C code holds the GIL.
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Self

import trio
from attrs import define, field

from trio_supervisor._location import PACKAGE
from trio_supervisor.process.groups import IS_LINUX

# No other code uses this signal. It is sent only to processes that have a handler.
DUMP_SIGNAL: Final = (
    signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
)
_READ_SIZE: Final = 256 * 1024
_FRAME: Final = '  File "'
_OWN_FRAMES: Final = (
    f"{_FRAME}{os.path.abspath(PACKAGE)}{os.sep}",
    f"{_FRAME}<frozen runpy>",
)
_POLL_INTERVAL: Final = 0.005
# A dump of many threads is written in parts; it is complete after this pause [s].
_QUIET: Final = 0.05
# After this time the other threads are signalled as well: the main thread may have
# blocked all signals [s].
_MAIN_WITHIN: Final = 0.4


@define(eq=False)
class BlackBox:
    """The controller's end; made by `open_black_box`. A context manager."""

    descriptor: int
    """For the worker to inherit."""
    _is_closed: bool = field(default=False, init=False)
    _last: str = field(default="", init=False)
    """Its content when it was closed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; keep its content. May be called again."""
        if not self._is_closed:
            self._last = self.read()
            self._is_closed = True
            os.close(self.descriptor)

    def read(self) -> str:
        """Return the content, without the frames that started the worker."""
        if self._is_closed:
            return self._last
        data = os.pread(self.descriptor, _READ_SIZE, 0)
        return without_boot(data.decode("utf-8", "backslashreplace"))

    async def ask(self, process_id: int, threads: Sequence[int] | None = None) -> str:
        """Make threads of the process write their stacks; return these.

        The signal may interrupt a system call of a thread. Waits until a thread writes:
        use `trio.fail_after`. If the process exits, return the stacks written so far;
        empty if it has no handler for the signal.

        Args:
            process_id: Must not have been reaped.
            threads: The main thread first, if it is included; None: all threads.
        """
        await trio.lowlevel.checkpoint()
        if self._is_closed or not has_handler(process_id, DUMP_SIGNAL):
            return self._last
        os.ftruncate(self.descriptor, 0)
        main, *others = threads or threads_of(process_id) or [process_id]
        # The main thread matters most, and may answer late on a busy machine. Some
        # threads never answer, so answers cannot be counted.
        with trio.move_on_after(_MAIN_WITHIN):
            _signal_thread(process_id, main, DUMP_SIGNAL)
            await self._wait_whole()
        if not self._is_closed:
            for thread in others:
                # One after another: all at once has crashed healthy processes.
                _signal_thread(process_id, thread, DUMP_SIGNAL)
            await self._wait_whole()
        return self.read()

    async def _wait_whole(self) -> None:
        """Wait until something is written, and nothing more follows."""
        while not (size := self._size()) and not self._is_closed:  # noqa: ASYNC110
            await trio.sleep(_POLL_INTERVAL)
        while not self._is_closed:
            await trio.sleep(_QUIET)
            if (grown := self._size()) == size:
                return
            size = grown

    def _size(self) -> int:
        return 0 if self._is_closed else os.fstat(self.descriptor).st_size


def open_black_box() -> BlackBox | None:
    """Return a new black box; None: not supported on this system."""
    if not IS_LINUX:
        return None
    descriptor = os.memfd_create("trio_supervisor black box")
    # O_APPEND: after it was truncated, writing continues at the new end.
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND | os.O_RDWR)
    return BlackBox(descriptor)


def without_boot(text: str) -> str:
    """Return stacks of faulthandler without the outermost frames of this package."""
    kept: list[str] = []
    for line in reversed(text.splitlines()):
        # Bottom up: frames are listed innermost first, ours are the last of each stack.
        is_frame = line.startswith(_FRAME)
        is_own = line.startswith(_OWN_FRAMES)
        is_outermost = not kept or not kept[-1].startswith(_FRAME)
        if not (is_frame and is_own and is_outermost):
            kept.append(line)
    return "\n".join(reversed(kept))


def use_black_box(descriptor: int) -> None:
    """In the worker: write stacks to *descriptor* on fatal signals and on request.

    An application's own faulthandler for fatal signals stays in use.
    """
    if not faulthandler.is_enabled():
        faulthandler.enable(file=descriptor)
    faulthandler.register(DUMP_SIGNAL, file=descriptor, all_threads=False)


def has_handler(process_id: int, number: int) -> bool:
    """Return whether the process has a handler for signal *number*.

    Source: proc_pid_status(5), SigCgt.
    """
    with suppress(OSError, ValueError), open(f"/proc/{process_id}/status") as file:
        for line in file:
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def threads_of(process_id: int) -> list[int]:
    """Return the threads of a process, its main thread first."""
    with suppress(OSError):
        threads = map(int, os.listdir(f"/proc/{process_id}/task"))
        return sorted(threads, key=lambda thread: (thread != process_id, thread))
    return []


def switches_of(process_id: int) -> dict[int, int]:
    """Return the number of voluntary context switches of each thread, by its number.

    A thread that waits for the GIL does one at each switch interval: at least some
    hundred times a second.

    Source: proc_pid_status(5), voluntary_ctxt_switches; CPython's ``take_gil``.
    """
    found = {}
    for thread in threads_of(process_id):
        path = f"/proc/{process_id}/task/{thread}/status"
        with suppress(OSError, ValueError), open(path) as file:
            for line in file:
                if line.startswith("voluntary_ctxt_switches:"):
                    found[thread] = int(line.split()[1])
    return found


def _signal_thread(process_id: int, thread: int, number: int) -> None:
    """Source: tgkill(2), which the standard library does not wrap."""
    ctypes.CDLL(None).tgkill(process_id, thread, number)
