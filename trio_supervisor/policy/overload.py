"""Tell a hanging worker from one that is late because the machine is overloaded. Pure.

A timeout counts only the time in which the worker could have run, and in which the
controller could have noticed its heartbeat.
"""

from __future__ import annotations

import math
from typing import Final

from attrs import define, field, frozen

MOST: Final = 5.0
"""A worker is overdue after this many times its timeout, however long it waited for a
processor, so that a worker that hangs on an overloaded machine is found as well."""
STAGGER: Final = 0.25
"""Time between two workers that are stopped because of a timeout [s]."""
STAGGER_PRESSED: Final = 1.0
"""The same while the machine is under pressure [s]."""
HOLD: Final = 1.0
"""Time until an overdue worker is reviewed again on an overloaded machine [s]."""
LATE: Final = 0.5
"""A worker counts as late after this part of its timeout. Three heartbeats are due
within the timeout, so at least one is missing."""
_FEWEST: Final = 3
"""Fewer late workers than this say nothing about the machine."""

# Percent of the last ten seconds, as in /proc/pressure; the last two are fractions.
_CPU_SOME: Final = 60.0
_MEMORY_FULL: Final = 10.0
_IO_FULL: Final = 40.0
_LATENESS: Final = 0.1
_QUEUED: Final = 0.25


@frozen(kw_only=True)
class ResponseGap:
    """Time since a worker was last heard from [s]."""

    elapsed: float
    ours: float = 0.0
    """Part of *elapsed* in which the controller itself did not run."""
    queued: float = 0.0
    """Part of *elapsed* in which the worker waited for a processor or for memory."""

    @property
    def watched(self) -> float:
        """Time in which the controller could have noticed a heartbeat."""
        return max(0.0, self.elapsed - self.ours)

    @property
    def counted(self) -> float:
        """Time in which, in addition, the worker could have sent a heartbeat."""
        return max(0.0, self.watched - self.queued)


def time_left(gap: ResponseGap, timeout: float) -> float:
    """Return how long to wait for a heartbeat yet [s]; 0: the worker is overdue."""
    left = min(timeout - gap.counted, MOST * timeout - gap.watched)
    return max(0.0, left)


def is_certain(gap: ResponseGap, timeout: float) -> bool:
    """Return whether the gap is too long to be explained by an overloaded machine."""
    return timeout > 0 and gap.watched >= MOST * timeout


@frozen(kw_only=True)
class Pressure:
    """Load of the machine over the last ten seconds."""

    cpu: float = 0.0
    """Time in which some task waited for a processor [%]."""
    memory: float = 0.0
    """Time in which all tasks waited for memory [%]."""
    io: float = 0.0
    """Time in which all tasks waited for a disk [%]."""
    lateness: float = 0.0
    """Fraction of the time in which the controller's event loop was late, 0 to 1."""
    queued: float = 0.0
    """Fraction of its gap in which a late worker waited for a processor, 0 to 1."""

    @property
    def is_high(self) -> bool:
        """Whether the load explains why workers are late."""
        return bool(self.causes)

    @property
    def causes(self) -> tuple[str, ...]:
        """The values that are too high, in words."""
        found = (
            (self.cpu >= _CPU_SOME, f"cpu pressure {self.cpu:.0f}%"),
            (self.memory >= _MEMORY_FULL, f"memory pressure {self.memory:.0f}%"),
            (self.io >= _IO_FULL, f"io pressure {self.io:.0f}%"),
            (
                self.lateness >= _LATENESS,
                f"event loop late {self.lateness:.0%} of the time",
            ),
            (
                self.queued >= _QUEUED,
                f"waiting for a processor {self.queued:.0%} of the time",
            ),
        )
        return tuple(text for is_too_much, text in found if is_too_much)


@define(eq=False)
class Triage:
    """Decides which overdue workers are stopped, and when.

    They are stopped one after the other, but none while most workers are late and the
    machine is under pressure: restarts would increase the load.
    """

    is_overloaded: bool = field(default=False, init=False)
    _stopped_at: float = field(default=-math.inf, init=False)

    def review(self, *, late: int, watched: int, is_pressed: bool) -> bool:
        """Add a count of late workers; return whether `is_overloaded` changed."""
        is_most = late >= _FEWEST and 2 * late > watched
        was, self.is_overloaded = self.is_overloaded, is_most and is_pressed
        return was != self.is_overloaded

    def wait(self, now: float, *, is_pressed: bool, is_certain: bool) -> float:
        """Return when to ask again about an overdue worker [s]; 0: stop it now.

        Args:
            is_certain: Whether the worker itself is certainly to blame.
        """
        if self.is_overloaded and not is_certain:
            return HOLD
        pause = STAGGER_PRESSED if is_pressed else STAGGER
        if (left := self._stopped_at + pause - now) > 0:
            return left
        self._stopped_at = now
        return 0.0
