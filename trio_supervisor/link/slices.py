"""How much of a peer's input is dealt with in a row, so that others get their turn."""

from __future__ import annotations

import time
from typing import Final, Protocol

from attrs import define, field

# A call costs 20 us, and the longest one a few milliseconds.
SLICE: Final = 0.003
"""Work for one connection after which others get their turn [s]."""


class Pace(Protocol):
    """What the reading task of a peer asks between two messages."""

    most_queued: int | None
    """Answers that wait to be read, past which no more calls are read [bytes]."""

    async def begin(self) -> None:
        """Wait until the peer may have work done."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether others are to get their turn."""
        ...

    def end(self) -> None:
        """Note that work for this peer has paused."""
        ...


@define(eq=False)
class Slices:
    """The pace of a peer that no others compete with: it only yields to other tasks."""

    most_queued: int | None = field(default=None, init=False)
    _until: float = field(default=0.0, init=False)

    async def begin(self) -> None:
        """Begin a slice: nobody else is waited for."""
        self._until = time.perf_counter() + SLICE

    @property
    def is_over(self) -> bool:
        """Whether others are to get their turn."""
        return time.perf_counter() >= self._until

    def end(self) -> None:
        """Nothing is charged."""
