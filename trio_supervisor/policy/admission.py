"""How many workers may be starting at once. Pure: time comes in as *now*.

Without pressure, all of them. On a machine that is overloaded already, each start that
is added makes the others slower, until none is ready within its startup timeout: a
state that lasts after its cause is gone. There a few start at a time.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from attrs import define, field

EACH: Final = 4
"""Starts per processor at a time, under pressure."""
SLOT: Final = 5.0
"""How long a start counts [s]: one that takes longer waits for something else, such as
a database, more than for a processor."""


@define(eq=False)
class Admission:
    """The workers that are starting."""

    limit: int
    """How many, under pressure."""
    _since: dict[Hashable, float] = field(factory=dict, init=False)

    def admit(self, key: Hashable, now: float, *, is_pressed: bool) -> bool:
        """Return whether *key* may start now; if so, it counts as starting."""
        if is_pressed and key not in self._since and self.count(now) >= self.limit:
            return False
        self._since[key] = now
        return True

    def count(self, now: float) -> int:
        """Return how many starts count at the moment."""
        for key, since in list(self._since.items()):
            if now - since >= SLOT:
                del self._since[key]
        return len(self._since)

    def done(self, key: Hashable) -> bool:
        """Say that *key* is ready, or has ended; return whether it had counted."""
        return self._since.pop(key, None) is not None
