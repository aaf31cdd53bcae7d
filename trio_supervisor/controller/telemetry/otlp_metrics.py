"""Convert our metrics to those of OpenTelemetry, with the same names and values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

from attrs import define, field
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    DataT,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from trio_supervisor.policy.metrics_text import Family, Sample

_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
# The least and the greatest value are optional in OTLP, and not known here.
_UNKNOWN: Final = cast(float, None)

Series = tuple[str, tuple[tuple[str, str], ...]]
"""Name and labels."""


@define(eq=False)
class OtlpMetrics:
    """Makes what one export sends. Not for two threads at the same time.

    The values are cumulative. A number that fell, such as the processor time of a
    worker that was restarted, begins again at the time of the export before: backends
    then see a restart instead of a negative increase.
    """

    _resource: Resource
    _scope: InstrumentationScope
    _began: int
    """Since when the controller counts [ns since the epoch]."""
    _starts: dict[Series, tuple[float, int]] = field(factory=dict, init=False)
    """The last value of each series that only grows, and since when it counts."""
    _last: int = field(init=False)
    """When the export before was made."""

    def __attrs_post_init__(self) -> None:
        self._last = self._began

    def data(self, families: Iterable[Family], now: int) -> MetricsData:
        """Return *families* as of *now* [ns since the epoch]."""
        known, self._starts = self._starts, {}
        metrics = [
            Metric(_name(each), each.help, "", self._data(each, now, known))
            for each in families
            if each.samples
        ]
        self._last = now
        scope = ScopeMetrics(self._scope, metrics, "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])

    def _data(
        self, family: Family, now: int, known: Mapping[Series, tuple[float, int]]
    ) -> DataT:
        if family.kind == "histogram":
            return Histogram(list(self._histograms(family, now, known)), _CUMULATIVE)
        is_sum = family.kind == "counter"
        points = [
            NumberDataPoint(
                dict(each.labels),
                self._start(each.name, each.labels, each.value, known) if is_sum else 0,
                now,
                float(each.value),  # a series must not change between two types
            )
            for each in family.samples
        ]
        return Sum(points, _CUMULATIVE, True) if is_sum else Gauge(points)

    def _histograms(
        self, family: Family, now: int, known: Mapping[Series, tuple[float, int]]
    ) -> Iterator[HistogramDataPoint]:
        for labels, samples in _by_labels(family.samples):
            bounds, counts, below = [], [], 0.0
            total = count = 0.0
            for each in samples:
                if each.name.endswith("_bucket"):
                    bounds.append(float(each.labels["le"]))
                    counts.append(int(each.value - below))
                    below = each.value
                elif each.name.endswith("_sum"):
                    total = each.value
                else:
                    count = each.value
            yield HistogramDataPoint(
                attributes=labels,
                start_time_unix_nano=self._start(family.name, labels, count, known),
                time_unix_nano=now,
                count=int(count),
                sum=total,
                bucket_counts=counts,
                explicit_bounds=[bound for bound in bounds if bound != math.inf],
                min=_UNKNOWN,
                max=_UNKNOWN,
            )

    def _start(
        self,
        name: str,
        labels: Mapping[str, str],
        value: float,
        known: Mapping[Series, tuple[float, int]],
    ) -> int:
        """Return since when the series counts, and remember its value."""
        series = (name, tuple(sorted(labels.items())))
        last, start = known.get(series, (value, self._began))
        if value < last:
            start = self._last
        self._starts[series] = (value, start)
        return start


def _name(family: Family) -> str:
    """Return the name that ``/metrics`` shows."""
    return f"{family.name}_total" if family.kind == "counter" else family.name


def _by_labels(
    samples: Iterable[Sample],
) -> Iterable[tuple[dict[str, Any], list[Sample]]]:
    """Return the samples of each series of a histogram, and its labels."""
    found: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for each in samples:
        labels = tuple((k, v) for k, v in each.labels.items() if k != "le")
        found.setdefault(labels, []).append(each)
    return ((dict(labels), each) for labels, each in found.items())
