"""Whether a worker is overdue by its own fault, or because the machine is overloaded.

A timeout counts the time in which the worker could have run, and in which the
controller could have noticed. Pure: times, counts and pressure come in as arguments.
"""

from __future__ import annotations

import math
from typing import Final

from attrs import define, field, frozen

MOST: Final = 5.0
"""However long a worker waits for a processor, it is overdue after so many times its
timeout: so a worker that hangs on an overloaded machine is found, too."""
STAGGER: Final = 0.25
"""Between two workers that are stopped for a timeout [s]."""
STAGGER_PRESSED: Final = 1.0
"""The same while the machine is under pressure [s]."""
HOLD: Final = 1.0
"""How long a worker is spared at a time while the machine is overloaded [s]."""
LATE: Final = 0.5
"""A worker counts as late after this part of its timeout. Heartbeats come three times
within it: so one is missing for certain."""
_FEWEST: Final = 3
"""Fewer late workers say nothing about a machine."""

# Percent of the last ten seconds, as in /proc/pressure; and parts of one.
_CPU_SOME: Final = 60.0
_MEMORY_FULL: Final = 10.0
_IO_FULL: Final = 40.0
_LATENESS: Final = 0.1
_QUEUED: Final = 0.25


@frozen(kw_only=True)
class Silence:
    """Time since the last sign of life of a worker [s]."""

    elapsed: float
    ours: float = 0.0
    """Part of it in which the controller itself did not run."""
    queued: float = 0.0
    """Part of it in which the worker waited for a processor, or for memory."""

    @property
    def watched(self) -> float:
        """The time in which the controller could have noticed something."""
        return max(0.0, self.elapsed - self.ours)

    @property
    def counted(self) -> float:
        """The time in which the worker could have given a sign of life, too."""
        return max(0.0, self.watched - self.queued)


def time_left(silence: Silence, timeout: float) -> float:
    """Return how long to wait for a sign of life yet [s]; 0: it is overdue."""
    left = min(timeout - silence.counted, MOST * timeout - silence.watched)
    return max(0.0, left)


def is_certain(silence: Silence, timeout: float) -> bool:
    """Whether the silence is so long that the state of the machine is no excuse."""
    return timeout > 0 and silence.watched >= MOST * timeout


@frozen(kw_only=True)
class Pressure:
    """How much the machine has to do, over the last ten seconds."""

    cpu: float = 0.0
    """Time in which something waited for a processor [%]."""
    memory: float = 0.0
    """Time in which everything waited for memory [%]."""
    io: float = 0.0
    """Time in which everything waited for a disk [%]."""
    lateness: float = 0.0
    """Part of the time in which the controller's event loop was late, 0 to 1."""
    queued: float = 0.0
    """Part of its silence in which a late worker waited for a processor, 0 to 1."""

    @property
    def is_high(self) -> bool:
        """Whether that explains why workers are late."""
        return bool(self.causes)

    @property
    def causes(self) -> tuple[str, ...]:
        """What is too much, in words."""
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
    """Decides which of the overdue workers are stopped, and when.

    One after the other; none while most are late and the machine is under pressure:
    then the machine is overloaded, and restarts would add to it.
    """

    is_overloaded: bool = field(default=False, init=False)
    _stopped_at: float = field(default=-math.inf, init=False)

    def review(self, *, late: int, watched: int, is_pressed: bool) -> bool:
        """Take in how many workers are late; return whether `is_overloaded` changed."""
        is_most = late >= _FEWEST and 2 * late > watched
        was, self.is_overloaded = self.is_overloaded, is_most and is_pressed
        return was != self.is_overloaded

    def wait(self, now: float, *, is_pressed: bool, is_certain: bool) -> float:
        """Return how long to spare an overdue worker [s]; 0: it is stopped now.

        Args:
            is_certain: Whether it is certain that the worker itself is to blame.
        """
        if self.is_overloaded and not is_certain:
            return HOLD
        pause = STAGGER_PRESSED if is_pressed else STAGGER
        if (left := self._stopped_at + pause - now) > 0:
            return left
        self._stopped_at = now
        return 0.0
