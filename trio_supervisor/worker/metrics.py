"""Count in a worker: `worker.metrics`.

Each number is one place in memory that the controller reads at any time, also while
this process is blocked or stopped. A change of it is a single statement without a call,
which threads of CPython do not interrupt: counts of several threads are not lost.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, TypeAlias

from trio_supervisor.errors import SpecError
from trio_supervisor.policy.metrics import (
    OTHER,
    Counter,
    Gauge,
    Histogram,
    Metric,
    Metrics,
    series_of,
    width_of,
)
from trio_supervisor.process.shared_numbers import Numbers

NumberSeries: TypeAlias = "CountedSeries | GaugedSeries | ObservedSeries"


class _Series:
    """One metric, or with `labels` one of its series."""

    __slots__ = ("_labels", "_name", "_numbers", "_place", "_series")

    def __init__(
        self,
        name: str,
        numbers: Numbers,
        place: int,
        labels: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._name = name
        self._numbers = numbers
        self._place = place
        self._labels = labels
        self._series: dict[tuple[str, ...], Any] = {}

    @property
    def value(self) -> float:
        """What this process has counted until now."""
        return self._numbers[self._place]

    def _of(self, labels: Mapping[str, str]) -> Any:
        """Return the series with *labels*.

        Raises:
            SpecError: a label is missing or unknown.
        """
        if labels.keys() != self._labels.keys():
            wanted = ", ".join(self._labels) or "none"
            problem = f"expected the labels {wanted}; got {', '.join(labels) or 'none'}"
            raise SpecError(self._name, problem)
        key = tuple(
            labels[name] if labels[name] in values else OTHER
            for name, values in self._labels.items()
        )
        return self._series[key]


class CountedSeries(_Series):
    """A `Counter` of this worker."""

    __slots__ = ()

    def labels(self, **labels: str) -> CountedSeries:
        """Return the series with *labels*: keep it where it is counted often.

        Raises:
            SpecError: a label is missing or unknown.
        """
        found: CountedSeries = self._of(labels)
        return found

    def inc(self, amount: float = 1.0) -> None:
        """Add *amount*.

        Raises:
            SpecError: *amount* is negative, infinite or not a number.
        """
        if not 0 <= amount < math.inf:
            raise SpecError(self._name, f"expected 0 or more, got {amount!r:.80}")
        self._numbers[self._place] += amount


class GaugedSeries(_Series):
    """A `Gauge` of this worker."""

    __slots__ = ()

    def labels(self, **labels: str) -> GaugedSeries:
        """Return the series with *labels*, see `CountedSeries.labels`."""
        found: GaugedSeries = self._of(labels)
        return found

    def inc(self, amount: float = 1.0) -> None:
        """Add *amount*."""
        self._numbers[self._place] += amount

    def dec(self, amount: float = 1.0) -> None:
        """Subtract *amount*."""
        self._numbers[self._place] -= amount

    def set(self, value: float) -> None:
        """Set it to *value*."""
        self._numbers[self._place] = value

    @contextmanager
    def track(self) -> Iterator[None]:
        """Count 1 for the length of the block."""
        self.inc()
        try:
            yield
        finally:
            self.dec()


class ObservedSeries(_Series):
    """A `Histogram` of this worker."""

    __slots__ = ("_bounds",)

    def __init__(
        self,
        name: str,
        numbers: Numbers,
        place: int,
        labels: Mapping[str, tuple[str, ...]],
        bounds: tuple[float, ...],
    ) -> None:
        super().__init__(name, numbers, place, labels)
        self._bounds = bounds

    def labels(self, **labels: str) -> ObservedSeries:
        """Return the series with *labels*, see `CountedSeries.labels`."""
        found: ObservedSeries = self._of(labels)
        return found

    @property
    def value(self) -> float:
        """How many numbers this process has observed until now."""
        buckets = range(self._place, self._place + len(self._bounds) + 1)
        return sum(self._numbers[place] for place in buckets)

    def observe(self, value: float) -> None:
        """Count *value* in its bucket.

        Raises:
            SpecError: *value* is negative, infinite or not a number: the sum of a
                histogram only grows.
        """
        if not 0 <= value < math.inf:
            raise SpecError(self._name, f"expected 0 or more, got {value!r:.80}")
        bucket = self._place + bisect_left(self._bounds, value)
        total = self._place + len(self._bounds) + 1
        self._numbers[bucket] += 1
        self._numbers[total] += value

    @contextmanager
    def time(self) -> Iterator[None]:
        """Observe how long the block takes [s]."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - began)


class WorkerMetrics:
    """The metrics that the service declares, as attributes."""

    def __init__(self, metrics: Metrics, numbers: Numbers) -> None:
        series = {
            name: _series(name, metrics[name], numbers, metrics.offset(name))
            for name in metrics
        }
        # As attributes proper: by `__getattr__`, an increment is eight times as slow.
        self.__dict__.update(series)
        self._by_name = series

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._by_name[name]
        except KeyError:
            near = get_close_matches(name, self._by_name, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise AttributeError(
                f"the service declares no metric {name!r}{hint} (Service(metrics=…))"
            ) from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._by_name]


def _series(name: str, metric: Metric, numbers: Numbers, offset: int) -> NumberSeries:
    first = _one(name, metric, numbers, offset)
    if metric.labels:
        for index, key in enumerate(series_of(metric)):
            place = offset + index * width_of(metric)
            first._series[key] = _one(name, metric, numbers, place, is_leaf=True)
    return first


def _one(
    name: str,
    metric: Metric,
    numbers: Numbers,
    place: int,
    *,
    is_leaf: bool = False,
) -> NumberSeries:
    labels = {} if is_leaf else metric.labels
    if labels:
        numbers = _NEEDS_LABELS
    if isinstance(metric, Counter):
        return CountedSeries(name, numbers, place, labels)
    if isinstance(metric, Gauge):
        return GaugedSeries(name, numbers, place, labels)
    assert isinstance(metric, Histogram)
    return ObservedSeries(name, numbers, place, labels, metric.buckets)


class _NeedsLabels:
    """Stands for the numbers of a metric that was used without its labels."""

    def __getitem__(self, place: int, /) -> float:
        raise SpecError("labels", "this metric has labels: use .labels(NAME=VALUE)")

    def __setitem__(self, place: int, value: float, /) -> None:
        self[place]


_NEEDS_LABELS = _NeedsLabels()
