"""Draw a series of numbers as a line of block characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_LEVELS: Final = "▁▂▃▄▅▆▇█"
# A range below this fraction of the highest value is drawn as if it were this wide:
# noise of a steady value must not look like growth.
_LEAST_RANGE: Final = 0.1


def sparkline(
    values: Sequence[float | None], width: int, low: float, high: float
) -> str:
    """Return the last *width* of *values*, one character each, right-aligned.

    Args:
        values: The oldest first; None is drawn as a space.
        width: Characters of the result.
        low: The value of the lowest block.
        high: The value of the highest block.
    """
    span = max(high - low, 1e-9)
    top = len(_LEVELS) - 1
    shown = [
        " "
        if value is None
        else _LEVELS[round(max(0.0, min((value - low) / span, 1.0)) * top)]
        for value in values[-width:]
    ]
    return "".join(shown).rjust(width)


def cpu_sparkline(values: Sequence[float | None], width: int) -> str:
    """Draw shares of a processor: from 0 to 100 %, or to the highest if above."""
    return sparkline(values, width, 0.0, max([1.0, *_known(values[-width:])]))


def memory_sparkline(values: Sequence[float | None], width: int) -> str:
    """Draw sizes: from the lowest to the highest, so that growth is visible."""
    known = _known(values[-width:])
    if not known:
        return " " * width
    low, high = min(known), max(known)
    return sparkline(values, width, low, max(high, low + _LEAST_RANGE * high))


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
