"""Detect a leak from samples of memory, by a robust slope. Pure.

Sources: Theil (1950) and Sen (1968), "Estimates of the regression coefficient based on
Kendall's tau", for the median slope and its confidence interval.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from attrs import define, field, frozen

from trio_supervisor.policy.memory import mebibytes

BLOCKS: Final = 24
"""Parts of a window; the least size in each of them is compared."""
STEADY: Final = 0.7
"""Least slope of the later half of a window, as a part of the earlier half's."""
DEFAULT_RATE: Final = 4096.0
"""Growth that counts as a leak [bytes/s]: 14 MiB per hour."""
# Two-sided 99 %: of a thousand workers judged all day, few must be wrong.
_Z: Final = 2.576
_FEWEST: Final = 3


@frozen(kw_only=True)
class Slope:
    """The median slope of a series, with a confidence interval of 99 % [1/s]."""

    low: float
    middle: float
    high: float


@frozen(kw_only=True)
class SteadyGrowth:
    """The memory of a process has grown steadily: it leaks."""

    size: int
    """[bytes]"""
    rate: float
    """[bytes/s]"""
    window: float
    """[s]"""

    def __str__(self) -> str:
        return (
            f"its memory has grown by {mebibytes(round(self.rate * 3600))} per hour "
            f"for {self.window:.0f} s (leak_window), now {mebibytes(self.size)}"
        )


def slope_of(points: Sequence[tuple[float, float]]) -> Slope | None:
    """Return the slope of *points*, each a time and a value.

    None: there are fewer than three points. Times must differ.
    """
    count = len(points)
    if count < _FEWEST:
        return None
    slopes = sorted(
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for index, earlier in enumerate(points)
        for later in points[index + 1 :]
    )
    spread = _Z * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, math.floor((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))
    middle = len(slopes) // 2
    median = (slopes[middle] + slopes[-middle - 1]) / 2
    return Slope(low=slopes[low], middle=median, high=slopes[high])


def find_growth(
    sizes: Iterable[tuple[float, int]], *, window: float, rate: float
) -> SteadyGrowth | None:
    """Return the growth of *sizes* in their last window; None: it is no leak.

    Args:
        sizes: Times [s] and memory [bytes], the oldest first.
        window, rate: See `GrowthHistory`.
    """
    history = GrowthHistory(window=window, rate=rate)
    for time, size in sizes:
        history.add(time, size)
    return history.latest


@define(kw_only=True)
class GrowthHistory:
    """Memory of one process over a window that moves on.

    A window has 24 blocks, and each block counts with its least size: a cache that is
    cleared, garbage before a collection and large requests leave the least sizes where
    they were. The process leaks if the slope of these is at least *rate* and positive
    with confidence, does not slow down (a warm-up does), and if its memory is larger
    than in any earlier window (a daily wave comes back).
    """

    window: float
    """[s]"""
    rate: float = DEFAULT_RATE
    """[bytes/s]"""
    _blocks: deque[tuple[float, int]] = field(
        factory=lambda: deque(maxlen=BLOCKS), init=False
    )
    """Start and least size of each block."""
    _earlier: int = field(default=0, init=False)
    """The largest of the blocks that have left the window."""
    _began: float | None = field(default=None, init=False)
    _least: int = field(default=0, init=False)
    latest: SteadyGrowth | None = field(default=None, init=False)
    """The leak that the last block showed; None: it showed none."""

    def add(self, time: float, size: int) -> SteadyGrowth | None:
        """Add a sample; return the leak if there is one, once for each block.

        Args:
            time: Any clock that does not go backwards [s].
            size: [bytes]
        """
        if self._began is None:
            self._began, self._least = time, size
            return None
        if time - self._began < self.window / BLOCKS:
            self._least = min(self._least, size)
            return None
        if len(self._blocks) == BLOCKS:
            self._earlier = max(self._earlier, self._blocks[0][1])
        self._blocks.append((self._began, self._least))
        self._began, self._least = time, size
        if len(self._blocks) == BLOCKS:
            self.latest = self._judge(size)
        return self.latest

    def _judge(self, size: int) -> SteadyGrowth | None:
        points = list(self._blocks)
        if points[-1][1] <= self._earlier:
            return None
        # Most workers do not grow: spare them the slopes.
        if points[-1][1] - points[0][1] < self.rate * (points[-1][0] - points[0][0]):
            return None
        slope = slope_of(points)
        earlier, later = (
            slope_of(points[: BLOCKS // 2]),
            slope_of(points[BLOCKS // 2 :]),
        )
        assert slope is not None
        assert earlier is not None
        assert later is not None
        if slope.low <= 0 or slope.middle < self.rate:
            return None
        if later.middle < max(self.rate, STEADY * earlier.middle):
            return None
        return SteadyGrowth(size=size, rate=slope.middle, window=self.window)
