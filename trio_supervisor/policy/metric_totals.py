"""Totals of a service's metrics over all its processes, past and present. Pure.

A counter never goes back: when a process has exited, what it counted is added to what
is kept, and a number that a process should not have written (one that shrank, or is not
a number) does not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from attrs import define, field

from trio_supervisor.policy.metrics import (
    Gauge,
    Histogram,
    Metric,
    Metrics,
    kind_of,
    series_of,
    width_of,
)

Key = tuple[str, str, tuple[str, ...], str]
"""Kind and name of the metric, values of its labels, and which number of it: empty; or
for a histogram the upper bound of a bucket, or ``sum``."""
Totals = dict[Key, float]


@define(eq=False)
class ProcessNumbers:
    """What one process has counted, as far as it is known."""

    metrics: Metrics
    _last: list[float] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._last = [0.0] * self.metrics.slots

    def update(self, numbers: Sequence[float]) -> None:
        """Take in what the process has written; see the module on what is refused."""
        place = 0
        for name in self.metrics:
            metric = self.metrics[name]
            is_gauge = isinstance(metric, Gauge)
            count = width_of(metric) * len(list(series_of(metric)))
            for at in range(place, min(place + count, len(numbers))):
                value = numbers[at]
                if math.isfinite(value) and (is_gauge or value > self._last[at]):
                    self._last[at] = value
            place += count

    def totals(self, *, with_gauges: bool = True) -> Totals:
        """Return the numbers by key."""
        found: Totals = {}
        for name in self.metrics:
            metric = self.metrics[name]
            if isinstance(metric, Gauge) and not with_gauges:
                continue
            place = self.metrics.offset(name)
            for labels in series_of(metric):
                for part in parts_of(metric):
                    key = (kind_of(metric), name, labels, part)
                    found[key] = self._last[place]
                    place += 1
        return found


def parts_of(metric: Metric) -> tuple[str, ...]:
    """Return the names of a series' numbers, in the order of their places."""
    if not isinstance(metric, Histogram):
        return ("",)
    return (*map(bound_text, (*metric.buckets, math.inf)), "sum")


def bound_text(bound: float) -> str:
    """Return the upper bound of a bucket, as metrics are exposed."""
    return "+Inf" if bound == math.inf else repr(bound)


def added(totals: Iterable[Mapping[Key, float]]) -> Totals:
    """Return the sums of *totals*."""
    found: Totals = {}
    for each in totals:
        for key, value in each.items():
            found[key] = found.get(key, 0.0) + value
    return found
