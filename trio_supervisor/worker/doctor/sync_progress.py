"""Whether the main thread gets on where there is no event loop that would show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Final

from attrs import define, field

from trio_supervisor.diagnostics.stacks.frames import outwards
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop
from trio_supervisor.worker.instance import SyncStopping
from trio_supervisor.worker.runtimes import SyncRuntime

_ENOUGH: Final = 10
"""Looks that saw the same function, after which one wants to know about its call."""


@define(eq=False)
class OneCall:
    """Whether all looks see the main thread in one and the same call of a function.

    A call is known again by its frame, which has to be kept for that from one look to
    the next; if it ended meanwhile, so are its variables. So this is done only once the
    function has been the same for a while, and never again after it was another call.
    """

    _code: CodeType | None = field(default=None, init=False)
    _frame: FrameType | None = field(default=None, init=False)
    _looks: int = field(default=0, init=False)
    _differs: bool = field(default=False, init=False)

    @property
    def is_one(self) -> bool:
        """Whether it is known to be one call."""
        return self._frame is not None

    def look(self, frame: FrameType | None) -> None:
        """Take in the frame that the thread is in at the moment."""
        frame = _skip_expressions(frame)
        self._looks += 1
        if frame is None or self._differs:
            self.end()
        elif self._code is None:
            self._code = frame.f_code
        elif frame.f_code is not self._code or (
            self._frame is not None and frame is not self._frame
        ):
            self._differs = True
            self.end()
        elif self._looks >= _ENOUGH:
            self._frame = frame

    def end(self) -> None:
        """Let go of the frame."""
        self._frame = None


def _skip_expressions(frame: FrameType | None) -> FrameType | None:
    """Count generator expressions and the like as part of the function around them."""
    for found in outwards(frame):
        if not found.f_code.co_name.startswith("<") or found.f_back is None:
            return found
    return None


@define(eq=False)
class _Counter:
    """Stands before what a look at ``stopping`` calls."""

    behind: Callable[[], None]
    count: int = 0
    users: int = 0

    def __call__(self) -> None:
        self.count += 1
        self.behind()


@contextmanager
def turns_counted(main: MainLoop) -> Iterator[Callable[[], int]]:
    """Count how often a plain function looks whether it is to stop.

    Yields what returns how often that was; always 0 for anything else than the target
    of a sync worker.
    """
    stopping = _stopping_of(main)
    if stopping is None:
        yield lambda: 0
        return
    # Two doctors share one: each would put back what the other has put there.
    counter = stopping._heartbeat
    if not isinstance(counter, _Counter):
        counter = stopping._heartbeat = _Counter(counter)
    before = counter.count
    counter.users += 1
    try:
        yield lambda: counter.count - before
    finally:
        counter.users -= 1
        if not counter.users:
            stopping._heartbeat = counter.behind


def _stopping_of(main: MainLoop) -> SyncStopping | None:
    for frame in outwards(main.frame()):
        if frame.f_code is SyncRuntime.run.__code__:
            runtime: SyncRuntime = frame.f_locals["self"]
            return runtime._worker._stopping
    return None
