"""Where a worker's stacks are when none of its Python can run any more.

An anonymous file that the controller holds and the worker inherits. The worker's
faulthandler writes into it when a fatal signal ends it, and when it is asked to by
another signal: that works also while C code holds the interpreter's lock.
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

# Nothing else uses it, and what has no handler for it is never sent one.
ASK: Final = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
_MOST: Final = 256 * 1024
_FRAME: Final = '  File "'
_OWN_FRAMES: Final = (
    f"{_FRAME}{os.path.abspath(PACKAGE)}{os.sep}",
    f"{_FRAME}<frozen runpy>",
)
_LOOK: Final = 0.005
# A dump of many threads comes in pieces; after so long without one it is whole [s].
_QUIET: Final = 0.05
# The others are asked then in any case: a main thread may have blocked all signals [s].
_MAIN_WITHIN: Final = 0.4


@define(eq=False)
class BlackBox:
    """The controller's end; made by `open_black_box`. A context manager."""

    descriptor: int
    """What the worker inherits."""
    _is_closed: bool = field(default=False, init=False)
    _last: str = field(default="", init=False)
    """What was in it when it was given back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give it back, but for what is in it. May be called again."""
        if not self._is_closed:
            self._last = self.read()
            self._is_closed = True
            os.close(self.descriptor)

    def read(self) -> str:
        """Return what is in it, without the frames that only started the worker."""
        if self._is_closed:
            return self._last
        data = os.pread(self.descriptor, _MOST, 0)
        return without_boot(data.decode("utf-8", "backslashreplace"))

    async def ask(self, process_id: int, threads: Sequence[int] | None = None) -> str:
        """Have threads of the process write where they are; return that.

        A system call that one is in may be interrupted. Waits for as long as none
        writes: put `trio.fail_after` around it. Empty: the process has no handler for
        it. If the process ends, what was written until then.

        Args:
            process_id: Must not have been reaped.
            threads: The main thread first, if it is among them; None: all of them.
        """
        await trio.lowlevel.checkpoint()
        if self._is_closed or not has_handler(process_id, ASK):
            return self._last
        os.ftruncate(self.descriptor, 0)
        main, *others = threads or threads_of(process_id) or [process_id]
        # It is what is wanted most. On a busy machine it may answer late, and not all
        # threads answer at all, so that they cannot be counted.
        with trio.move_on_after(_MAIN_WITHIN):
            _signal_thread(process_id, main, ASK)
            await self._wait_whole()
        if not self._is_closed:
            for thread in others:
                # One after the other: all at once has crashed healthy processes.
                _signal_thread(process_id, thread, ASK)
            await self._wait_whole()
        return self.read()

    async def _wait_whole(self) -> None:
        """Wait until something was written, and nothing more comes."""
        while not (size := self._size()) and not self._is_closed:  # noqa: ASYNC110
            await trio.sleep(_LOOK)
        while not self._is_closed:
            await trio.sleep(_QUIET)
            if (grown := self._size()) == size:
                return
            size = grown

    def _size(self) -> int:
        return 0 if self._is_closed else os.fstat(self.descriptor).st_size


def open_black_box() -> BlackBox | None:
    """Return a new one; None: this system has no such files."""
    if not IS_LINUX:
        return None
    descriptor = os.memfd_create("trio_supervisor black box")
    # Truncated in between, it goes on at its new end.
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND | os.O_RDWR)
    return BlackBox(descriptor)


def without_boot(text: str) -> str:
    """Return what faulthandler wrote without the outermost frames that are ours."""
    kept: list[str] = []
    for line in reversed(text.splitlines()):
        # Upwards: frames come innermost first, and ours are the last of each stack.
        is_frame = line.startswith(_FRAME)
        is_own = line.startswith(_OWN_FRAMES)
        is_outermost = not kept or not kept[-1].startswith(_FRAME)
        if not (is_frame and is_own and is_outermost):
            kept.append(line)
    return "\n".join(reversed(kept))


def use_black_box(descriptor: int) -> None:
    """In the worker: have stacks written to *descriptor*, at its death or when asked.

    An application that has its own way with fatal signals keeps it.
    """
    if not faulthandler.is_enabled():
        faulthandler.enable(file=descriptor)
    faulthandler.register(ASK, file=descriptor, all_threads=False)


def has_handler(process_id: int, number: int) -> bool:
    """Whether the process catches signal *number*, which would end it otherwise.

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
    """Return how often each thread gave the processor back by itself, by its number.

    One that wants the interpreter's lock, and does not get it, does so at each switch
    interval: some hundred times a second at least.

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
