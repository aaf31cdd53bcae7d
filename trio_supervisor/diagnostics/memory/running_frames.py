"""Tell functions that ran at a moment from those that were called later.

The collector does not track a running frame, its address is soon used again, and a
reference to it would keep its variables alive. So a frame gets a mark: its
``f_trace_lines`` is cleared, which only a debugger reads. A new frame has it set.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Final

from attrs import define

from trio_supervisor.diagnostics.stacks.frames import (
    RunningThread,
    outwards,
    running_threads,
)

_SUSPENDS: Final = (
    inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
)
"""Flags of code whose frame outlives the moment at which it runs."""


@define(eq=False)
class FrameMarks:
    """The marks of one moment; `remove` them."""

    _addresses: frozenset[int]

    @classmethod
    def place(cls, threads: Sequence[RunningThread]) -> FrameMarks:
        """Mark the functions that *threads* run. Those a debugger traces are left."""
        marked = set[int]()
        for frame in _plain_frames(threads):
            if is_unmarked(frame):
                frame.f_trace_lines = False
                marked.add(id(frame))
        return cls(frozenset(marked))

    def remove(self) -> None:
        """Remove the marks of the functions that still run."""
        for frame in _plain_frames(running_threads()):
            if id(frame) in self._addresses:
                frame.f_trace_lines = True


def is_unmarked(frame: FrameType) -> bool:
    """Return whether *frame* is a function's that was called after the moment.

    False as well where that is unknown: a coroutine, a generator, a traced function.
    """
    suspends = frame.f_code.co_flags & _SUSPENDS
    return not suspends and frame.f_trace is None and frame.f_trace_lines


def _plain_frames(threads: Sequence[RunningThread]) -> Iterator[FrameType]:
    for thread in threads:
        for frame in outwards(thread.frame):
            if not frame.f_code.co_flags & _SUSPENDS:
                yield frame
