"""Count events in a sliding window. Pure: time comes in as *now*."""

from __future__ import annotations

from collections import deque

from attrs import define, field


@define
class Window:
    """Times of the events within a period, both of its ends included."""

    _times: deque[float] = field(factory=deque, init=False)

    def __len__(self) -> int:
        return len(self._times)

    def add(self, now: float, period: float) -> int:
        """Add an event at *now* [s]; return the number of events within *period* [s].

        Args:
            now: Not before the previous event, by any clock.
        """
        self._times.append(now)
        while self._times[0] < now - period:
            self._times.popleft()
        return len(self._times)

    def clear(self) -> None:
        """Forget all events."""
        self._times.clear()
