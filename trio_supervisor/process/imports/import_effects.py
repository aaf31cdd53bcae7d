"""Undo what an import has changed in the fork server, and redo it in its workers.

The fork server must keep working after an import has changed signals, timers, limits or
descriptors. A forked worker must find all of these as if it had run the import itself.
Other state (working directory, locale, hooks of `sys`, warning filters …) does
not disturb the server and is copied by the fork.
"""

from __future__ import annotations

import gc
import os
import posix
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from trio_supervisor.process.kernel import set_subreaper

# Raised by an instruction of the thread itself: if blocked, they kill the process.
_SYNCHRONOUS: Final = (
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGSYS,
    signal.SIGTRAP,
)
_TIMERS: Final = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_LIMITS: Final = tuple(
    sorted({getattr(resource, n) for n in dir(resource) if n.startswith("RLIMIT_")})
)
# Recursion limit that the server's own code needs.
_DEPTH: Final = 1000
_NONE: Final[Mapping[int, int]] = {}

_Identity = tuple[int, int] | None


def identity(descriptor: int) -> _Identity:
    """Return device and inode of an open file; None: *descriptor* is closed."""
    try:
        found = posix.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class StateBeforeImport:
    """State of a process before an import."""

    def __init__(self) -> None:
        self.environment = dict(os.environ)
        self.directory = _directory()
        self.streams = {number: identity(number) for number in (0, 1, 2)}
        self.limits = {limit: resource.getrlimit(limit) for limit in _LIMITS}
        self.umask = _umask()


class ImportEffects:
    """Changes that an import has made to its process; created after the import.

    Args:
        hard: Hard limits that the import has requested: see `hard_limits`.
    """

    def __init__(
        self, before: StateBeforeImport, hard: Mapping[int, int] = _NONE
    ) -> None:
        environment = dict(os.environ)
        known = before.environment
        self._set = {k: v for k, v in environment.items() if known.get(k) != v}
        self._removed = [k for k in known if k not in environment]
        self._before = before
        self._collects = gc.isenabled()
        self._depth = sys.getrecursionlimit()
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        limits = {limit: resource.getrlimit(limit) for limit in _LIMITS}
        self._limits = {
            limit: (before.limits[limit], (now[0], hard.get(limit, now[1])))
            for limit, now in limits.items()
            if now[0] != before.limits[limit][0] or limit in hard
        }
        """Limits that it has changed: the previous and the requested values."""
        self._umask = now if (now := _umask()) != before.umask else None
        """The umask that it has set; None: it has not changed it."""
        self._timers = {timer: signal.getitimer(timer) for timer in _TIMERS}
        self._wakeup = -1
        self._on_terminate: Any = signal.SIG_DFL
        self.redirected = {
            number
            for number, known in before.streams.items()
            if identity(number) not in (known, None)
        }
        """Standard streams that the import has redirected to another file."""
        self.stopped_watchdog = False
        """Whether a timer of `faulthandler.dump_traceback_later` was cancelled."""

    def hold(self, end: Callable[[], object]) -> None:
        """Suspend the changes in the fork server.

        Args:
            end: Called when this process receives SIGTERM.
        """
        signal.pthread_sigmask(
            signal.SIG_BLOCK, signal.valid_signals() - set(_SYNCHRONOUS)
        )
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        self._wakeup = signal.set_wakeup_fd(-1, warn_on_full_buffer=False)
        self._on_terminate = signal.signal(signal.SIGTERM, lambda *_: end())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        self._stop_watchdog()
        for limit, (before, _) in self._limits.items():
            _set_soft_limit(limit, before[0])
        sys.setrecursionlimit(max(self._depth, _DEPTH))
        set_subreaper(False)
        gc.disable()
        self._fill_streams()

    def _stop_watchdog(self) -> None:
        if (faulthandler := sys.modules.get("faulthandler")) is None:
            return
        before = _thread_count()
        with suppress(Exception):
            faulthandler.cancel_dump_traceback_later()
        self.stopped_watchdog = _thread_count() < before

    def _fill_streams(self) -> None:
        """Open /dev/null in place of closed standard streams.

        Otherwise the next file that is opened would get the number of one.
        """
        for number in (0, 1, 2):
            if identity(number) is None:
                descriptor = posix.open(os.devnull, posix.O_RDWR)
                if descriptor != number:
                    posix.dup2(descriptor, number)
                    posix.close(descriptor)
                posix.set_inheritable(number, True)

    def environment_of(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return *environment* with the changes that the import makes to it."""
        found = {**environment, **self._set}
        for name in self._removed:
            found.pop(name, None)
        return found

    def end_on_terminate(self) -> None:
        """Let SIGTERM end a preforked child that waits for its request."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def reapply(self) -> None:
        """In a child that runs the application: undo `hold`."""
        if self._collects:
            gc.enable()
        sys.setrecursionlimit(self._depth)
        if self._on_terminate is None:  # a handler of C code: Python cannot set it
            self._on_terminate = signal.SIG_DFL
        signal.signal(signal.SIGTERM, self._on_terminate)
        with suppress(ValueError, OSError):  # its descriptor may be closed
            signal.set_wakeup_fd(self._wakeup)
        if self._umask is not None:  # the service may have one of its own
            posix.umask(self._umask)
        for limit, (_, wanted) in self._limits.items():
            with suppress(ValueError, OSError):
                resource.setrlimit(limit, wanted)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        for timer, (first, interval) in self._timers.items():
            if first:
                signal.setitimer(timer, first, interval)

    def discard(self) -> None:
        """In a child that is not a worker: reset what the import has changed."""
        gc.enable()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            handler = signal.getsignal(number)
            if callable(handler) and not isinstance(handler, signal.Handlers):
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        with suppress(OSError):
            posix.chdir(self._before.directory)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _set_soft_limit(limit: int, soft: int) -> None:
    now, hard = resource.getrlimit(limit)
    if hard != resource.RLIM_INFINITY:
        soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
    if soft != now:
        with suppress(ValueError, OSError):
            resource.setrlimit(limit, (soft, hard))


def _umask() -> int:
    """Return the umask, which can only be read by setting it."""
    found = posix.umask(0o077)
    posix.umask(found)
    return found


def _thread_count() -> int:
    try:
        return len(posix.listdir("/proc/self/task"))
    except OSError:
        return 0


def _directory() -> str:
    try:
        return posix.getcwd()
    except OSError:  # the directory was removed
        return ""
