"""Limit the time spent on the input of one peer before other tasks run."""

from __future__ import annotations

import time
from typing import Final, Protocol

from attrs import define, field

# A call takes 20 us, and the longest one a few milliseconds.
SLICE: Final = 0.003
"""Time spent on one connection before other tasks run [s]."""


class Pace(Protocol):
    """Scheduling of the work for one peer."""

    most_queued: int | None
    """Size of queued answers above which no more calls are read [bytes]."""

    async def begin(self) -> None:
        """Wait until work for the peer may start."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether other tasks should run now."""
        ...

    def end(self) -> None:
        """Note that the work for this peer pauses."""
        ...


@define(eq=False)
class Slices:
    """Pace of a peer without competing peers: only lets other tasks run."""

    most_queued: int | None = field(default=None, init=False)
    _until: float = field(default=0.0, init=False)

    async def begin(self) -> None:
        """Begin a slice immediately."""
        self._until = time.perf_counter() + SLICE

    @property
    def is_over(self) -> bool:
        """Whether other tasks should run now."""
        return time.perf_counter() >= self._until

    def end(self) -> None:
        """Do nothing: no time is accounted."""
