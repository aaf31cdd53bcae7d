"""Limit how many workers start at the same time on a busy machine. Pure.

Without pressure there is no limit. On a machine that is already overloaded, each
further start slows down the others, until no worker is ready within its startup
timeout, and retries keep the machine overloaded. So under pressure a few workers start
at a time, and the others wait in a queue.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from attrs import define, field

K = TypeVar("K", bound=Hashable)

EACH: Final = 4
"""Maximum number of concurrent starts per processor under pressure. It is less than
the factor by which timeouts are extended under load, so that a worker that computes
all the time is still ready in time."""
IDLE: Final = 5.0
"""A worker that slept for this long while starting waits for something other than a
processor, such as a database, and no longer counts as starting [s]."""


def limit_for(cores: int) -> int:
    """Return the maximum number of concurrent starts under pressure."""
    return EACH * cores


def makes_room(elapsed: float, busy: float) -> bool:
    """Return whether a worker that is not ready yet no longer counts as starting.

    Args:
        elapsed: Time since it was admitted [s].
        busy: Part of *elapsed* in which it ran or waited for a processor [s].
    """
    return elapsed - busy >= IDLE


@define(eq=False)
class Admission(Generic[K]):
    """The workers that are starting, and the queue of those that wait to start."""

    limit: int
    """Maximum number of concurrent starts under pressure."""
    starting: dict[K, float] = field(factory=dict, init=False)
    """When each worker was admitted [s]."""
    _queue: dict[K, None] = field(factory=dict, init=False)

    def admit(self, key: K, now: float, *, is_pressed: bool) -> bool:
        """Return whether the worker *key* may start now; queue it if not."""
        if is_pressed and key not in self.starting:
            self._queue.setdefault(key)
            ahead = next(i for i, other in enumerate(self._queue) if other == key)
            if len(self.starting) + ahead >= self.limit:
                return False
        self._queue.pop(key, None)
        self.starting[key] = now
        return True

    def done(self, key: K) -> None:
        """Remove *key*: it is ready, has exited, or is not to start any more."""
        self.starting.pop(key, None)
        self._queue.pop(key, None)

    @property
    def is_idle(self) -> bool:
        """Whether the queue is empty."""
        return not self._queue

    def next(self, *, is_pressed: bool) -> list[K]:
        """Return the queued workers that would be admitted now."""
        room = self.limit - len(self.starting) if is_pressed else len(self._queue)
        return list(self._queue)[: max(0, room)]
