"""How late the controller's own event loop is: what it could not notice in time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import trio
from attrs import define, field

TICK: Final = 0.5
"""Between two looks [s]."""
WINDOW: Final = 10.0
"""What `share` looks back at [s]."""
# Less is no lateness: an event loop that computes for a moment.
_NORMAL: Final = 0.05
# More than eight minutes, all of them late.
_KEPT: Final = 1024


@define(eq=False)
class LoopClock:
    """Measures while `run` runs: a loop may be blocked, starved or suspended."""

    _on_tick: Callable[[], None] = lambda: None
    _late: deque[tuple[float, float]] = field(
        factory=lambda: deque(maxlen=_KEPT), init=False
    )
    """When the loop went on, and how late."""
    _due: float | None = field(default=None, init=False)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            self._due = trio.current_time() + TICK
            await trio.sleep_until(self._due)
            now = trio.current_time()
            if now - self._due > _NORMAL:
                self._late.append((now, now - self._due))
            self._on_tick()

    def lost(self, since: float, now: float) -> float:
        """Return the time from *since* to *now* in which the loop was late [s]."""
        total = sum(
            min(late, moment - since) for moment, late in self._late if moment > since
        )
        if self._due is not None and now - self._due > _NORMAL:
            # It is late at this moment: others were woken before its own task.
            total += min(now - self._due, now - since)
        return min(total, now - since)

    def worst(self, now: float) -> float:
        """Return how late the loop was at most in the last ten seconds [s]."""
        late = [seconds for moment, seconds in self._late if moment > now - WINDOW]
        return max(late, default=0.0)

    def share(self, now: float) -> float:
        """Return the part of the last ten seconds in which the loop was late."""
        return self.lost(now - WINDOW, now) / WINDOW
