"""How many workers may be starting at once. Pure.

Without pressure, all of them. On a machine that is overloaded already, each start that
is added makes the others slower, until none is ready within its startup timeout: a
state that lasts after its cause is gone. There a few start at a time, and the others
wait in a queue.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from attrs import define, field

K = TypeVar("K", bound=Hashable)

EACH: Final = 4
"""Starts per processor at a time, under pressure: fewer than the factor by which a
timeout may be stretched, so that none that computes all the time is late for it."""
IDLE: Final = 5.0
"""A start that has slept for so long waits for something else than a processor, such as
a database, and makes room [s]."""


def limit_for(cores: int) -> int:
    """Return how many may start at once under pressure."""
    return EACH * cores


def makes_room(elapsed: float, busy: float) -> bool:
    """Whether a start counts no more, though it is not ready.

    Args:
        elapsed: Since it was admitted [s].
        busy: Part of it in which it ran, or waited for a processor [s].
    """
    return elapsed - busy >= IDLE


@define(eq=False)
class Admission(Generic[K]):
    """The workers that are starting, and those that wait for it."""

    limit: int
    """How many may start at once, under pressure."""
    starting: dict[K, float] = field(factory=dict, init=False)
    """When each was admitted."""
    _queue: dict[K, None] = field(factory=dict, init=False)

    def admit(self, key: K, now: float, *, is_pressed: bool) -> bool:
        """Return whether *key* may start now; if not, it is queued."""
        if is_pressed and key not in self.starting:
            self._queue.setdefault(key)
            ahead = next(i for i, other in enumerate(self._queue) if other == key)
            if len(self.starting) + ahead >= self.limit:
                return False
        self._queue.pop(key, None)
        self.starting[key] = now
        return True

    def done(self, key: K) -> None:
        """Say that *key* is ready, has ended, or does not want to start any more."""
        self.starting.pop(key, None)
        self._queue.pop(key, None)

    @property
    def is_idle(self) -> bool:
        """Whether none waits."""
        return not self._queue

    def next(self, *, is_pressed: bool) -> list[K]:
        """Return those that wait, and would be admitted now."""
        room = self.limit - len(self.starting) if is_pressed else len(self._queue)
        return list(self._queue)[: max(0, room)]
