"""Counting over a sliding window. Pure: time comes in as *now*."""

from __future__ import annotations

from collections import deque

from attrs import define, field


@define
class Window:
    """Moments that lie no further back than a period; both of its ends count."""

    _times: deque[float] = field(factory=deque, init=False)

    def __len__(self) -> int:
        return len(self._times)

    def add(self, now: float, period: float) -> int:
        """Count one at *now* [s]; return how many there are within *period* [s].

        Args:
            now: No earlier than the last one, on any clock.
        """
        self._times.append(now)
        while self._times[0] < now - period:
            self._times.popleft()
        return len(self._times)

    def clear(self) -> None:
        """Forget all of them."""
        self._times.clear()
