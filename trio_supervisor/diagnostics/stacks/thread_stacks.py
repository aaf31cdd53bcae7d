"""Report the stacks of this process's threads."""

from __future__ import annotations

from types import FrameType
from typing import Final

from attrs import define, evolve

from trio_supervisor.diagnostics.stacks.frames import (
    FramePosition,
    RunningThread,
    as_frame,
    running_threads,
    stack_of,
    trim,
)
from trio_supervisor.diagnostics.stacks.values import short_locals
from trio_supervisor.wire.reports import Frame, ThreadReport, ThreadStack

_VARIABLES: Final = 30
"""Variables shown per frame."""
_MAX_TEXT: Final = 1_000_000
"""Text of the variables of all frames [characters]: it is sent twice."""


@define(eq=False)
class _Budget:
    """How many characters of variables may still be added."""

    left: int

    def locals_of(self, frame: FrameType) -> dict[str, str] | None:
        if self.left <= 0:
            return None
        found = short_locals(dict(frame.f_locals), _VARIABLES)
        self.left -= sum(len(name) + len(value) for name, value in found.items())
        return found


def thread_report(*, with_locals: bool = False) -> ThreadReport:
    """Return the stacks of all threads, the main thread first.

    Any thread may call it. Its own frames that make this report are left out, and so
    are the outermost ones, which start the process.

    Args:
        with_locals: Whether to include the variables of each frame, shortened and up
            to a total size, innermost frames first. No code of the application runs
            for it.
    """
    budget = _Budget(_MAX_TEXT if with_locals else 0)
    stacks = [(thread, stack_of(thread.frame)) for thread in running_threads()]
    threads = [
        _as_data(thread, trim(positions), budget) for thread, positions in stacks
    ]
    return ThreadReport(data=format_threads(threads), threads=tuple(threads))


def format_threads(threads: list[ThreadStack]) -> str:
    """Return stacks as text, the innermost frame last, as in a traceback."""
    lines = []
    for thread in threads:
        marks = [f"ident {thread.ident}"]
        marks += ["main"] if thread.is_main else []
        marks += ["daemon"] if thread.is_daemon else []
        lines.append(f"Thread {thread.name} ({', '.join(marks)})")
        for frame in thread.frames:
            lines += format_frame(frame)
    return "\n".join(lines)


def format_frame(frame: Frame) -> list[str]:
    """Return the lines of *frame*: location, source line, variables."""
    lines = [f"  {frame.file}:{frame.line} in {frame.function}"]
    lines += [f"    {frame.source}"] if frame.source else []
    lines += [f"      {name} = {text}" for name, text in (frame.locals or {}).items()]
    return lines


def _as_data(
    thread: RunningThread, positions: list[FramePosition], budget: _Budget
) -> ThreadStack:
    frames = [
        evolve(as_frame(position), locals=budget.locals_of(position.frame))
        for position in positions
    ]
    return ThreadStack(
        name=thread.name,
        ident=thread.ident,
        is_daemon=thread.is_daemon,
        is_main=thread.is_main,
        frames=tuple(reversed(frames)),
    )
