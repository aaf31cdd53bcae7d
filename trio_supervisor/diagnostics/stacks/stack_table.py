"""Deduplicate stacks: most of a thousand tasks wait in the same one."""

from __future__ import annotations

from collections.abc import Iterable
from types import CodeType, FrameType

from trio_supervisor.diagnostics.stacks.frames import FramePosition, as_frame
from trio_supervisor.wire.reports import Frame


class StackTable:
    """Numbers different stacks in the order of their first occurrence."""

    def __init__(self) -> None:
        self._frames: dict[tuple[int, int], tuple[CodeType, Frame]] = {}
        self._numbers: dict[tuple[int, ...], int] = {}
        self.stacks: list[tuple[Frame, ...]] = []

    def add(self, frames: Iterable[FrameType]) -> int:
        """Return the number of the stack of *frames*."""
        places = [self._place(frame) for frame in frames]
        # The table keeps every Frame alive, so that ids are unique.
        key = tuple(map(id, places))
        number = self._numbers.setdefault(key, len(self.stacks))
        if number == len(self.stacks):
            self.stacks.append(tuple(places))
        return number

    def _place(self, frame: FrameType) -> Frame:
        # By address: hashing a code object hashes all of its contents. By instruction:
        # looking up its line takes longer than everything else here.
        code = frame.f_code
        key = (id(code), frame.f_lasti)
        if (known := self._frames.get(key)) is None:
            # Kept with its code, so that the address is not reused.
            position = FramePosition(code, frame.f_lineno or 0, frame)
            known = self._frames[key] = (code, as_frame(position, with_source=False))
        return known[1]
