"""Synthetic series of memory sizes, each labelled: does it leak?"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from trio_supervisor.policy.leak import GrowthHistory
from trio_supervisor.policy.memory import Leaking, MemoryHistory, MemoryUse

MIB: Final = 2**20
HOUR: Final = 3600.0
STEP: Final = 60.0
"""Time between two samples [s]."""
DAYS: Final = 4
_BASE: Final = 200.0
"""[MiB]"""

Shape = Callable[[float, random.Random], float]


class Kind(NamedTuple):
    """A kind of series: size in MiB by time in hours."""

    name: str
    leaks_from: float | None
    """Hour from which on it leaks; None: it never does."""
    shape: Shape


def _saw(hours: float, period: float, height: float) -> float:
    return height * (hours % period) / period


def _day(hours: float) -> float:
    return 150 * (1 - math.cos(2 * math.pi * hours / 24)) / 2


KINDS: Final = (
    Kind("constant", None, lambda t, r: 0),
    Kind("noise", None, lambda t, r: r.gauss(0, 15)),
    Kind("peaks of single requests", None, lambda t, r: 300 * (r.random() < 0.03)),
    Kind("sawtooth of a cache, 10 min", None, lambda t, r: _saw(t, 1 / 6, 80)),
    Kind("sawtooth of a cache, 3 h", None, lambda t, r: _saw(t, 3, 80)),
    Kind("one step", None, lambda t, r: 120 * (t > 5)),
    Kind("warm-up over 30 min", None, lambda t, r: 250 * (1 - math.exp(-t / 0.15))),
    Kind("warm-up over 5 h", None, lambda t, r: 250 * (1 - math.exp(-t / 1.5))),
    Kind("daily wave", None, lambda t, r: _day(t)),
    Kind("fragmentation (logarithm)", None, lambda t, r: 30 * math.log1p(t)),
    Kind("fast leak, 5 MiB/min", 0, lambda t, r: 300 * t),
    Kind("leak, 1 MiB/min", 0, lambda t, r: 60 * t),
    Kind("slow leak, 20 MiB/h", 0, lambda t, r: 20 * t),
    Kind("leak behind noise", 0, lambda t, r: 60 * t + r.gauss(0, 25)),
    Kind("leak behind a sawtooth", 0, lambda t, r: 40 * t + _saw(t, 1 / 6, 80)),
    Kind("leak from hour 10 on", 10, lambda t, r: 60 * max(0, t - 10)),
    Kind("leak behind a daily wave", 0, lambda t, r: 60 * t + _day(t)),
)


def series(kind: Kind, seed: int) -> Iterator[tuple[float, int]]:
    """Yield the time [s] and the size [bytes] of each sample."""
    rng = random.Random(seed)
    for index in range(int(DAYS * 24 * HOUR / STEP)):
        time = index * STEP
        size = _BASE + kind.shape(time / HOUR, rng) + rng.gauss(0, 0.5)
        yield time, round(max(1.0, size) * MIB)


def by_slope(kind: Kind, seed: int, hours: float = 6) -> float | None:
    """Return when the slope over *hours* first reports a leak [h]; None: never."""
    history = GrowthHistory(window=hours * HOUR)
    for time, size in series(kind, seed):
        if history.add(time, size) is not None:
            return time / HOUR
    return None


def by_mark(kind: Kind, seed: int) -> float | None:
    """Return when the high-water mark first reports a leak [h]; None: never."""
    history = MemoryHistory(increase_limit=20)
    for time, size in series(kind, seed):
        if isinstance(history.add(MemoryUse(size=size), was_futile=False), Leaking):
            return time / HOUR
    return None


def table() -> str:
    """Return the comparison of both rules as a table for the documentation."""
    lines = [
        "| series | leaks | high-water mark | slope, 1 h | slope, 6 h | slope, 24 h |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        found = [by_mark(kind, 1), *(by_slope(kind, 1, hours) for hours in (1, 6, 24))]
        cells = " | ".join(_cell(kind, each) for each in found)
        leaks = "no" if kind.leaks_from is None else "yes"
        lines.append(f"| {kind.name} | {leaks} | {cells} |")
    return "\n".join(lines)


def _cell(kind: Kind, found: float | None) -> str:
    if kind.leaks_from is None:
        return "-" if found is None else f"**false alarm** after {found:.1f} h"
    if found is None:
        return "**not found**"
    if found < kind.leaks_from:
        return f"**false alarm** after {found:.1f} h"
    return f"after {found - kind.leaks_from:.1f} h"
