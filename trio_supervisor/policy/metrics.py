"""Metrics that a service declares and its workers count. Pure.

Every metric has a fixed number of series, since the values of labels are declared: so
each worker's numbers fit into memory of a size that is known before it starts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from typing import Final, TypeAlias

from attrs import field, frozen

from trio_supervisor.errors import SpecError

OTHER: Final = "other"
"""Value of a label that was given one that is not declared."""
DEFAULT_BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds [s] of a histogram's buckets, those of Prometheus' own clients."""
MAX_SLOTS: Final = 4096
"""Numbers that the metrics of one service may have: 32 KiB a worker."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED: Final = ("service", "worker", "le")

Labels: TypeAlias = Mapping[str, Sequence[str]]
"""Values of each label, by its name."""


def _labels(value: Labels | None) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    if value is not None and not isinstance(value, Mapping):
        raise SpecError("labels", f"expected a mapping of values, got {value!r:.80}")
    for name, values in (value or {}).items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _RESERVED:
            raise SpecError(
                "labels",
                f"expected a name of lower-case letters, digits and _, but none of "
                f"{', '.join(_RESERVED)}; got {name!r:.80}",
            )
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise SpecError(f"labels[{name!r}]", "expected a list of its values")
        texts = [each for each in values if isinstance(each, str)]
        if len(texts) < len(values) or len({*texts, OTHER}) <= len(texts) - (
            OTHER in texts
        ):
            raise SpecError(
                f"labels[{name!r}]", f"expected different texts, got {values!r:.80}"
            )
        found[name] = tuple(each for each in texts if each != OTHER)
    return found


def _help(value: object) -> str:
    if not isinstance(value, str):
        raise SpecError("help", f"expected a text, got {value!r:.80}")
    return value


def _buckets(value: Sequence[float]) -> tuple[float, ...]:
    try:
        bounds = tuple(float(each) for each in value)
    except (TypeError, ValueError):
        raise SpecError("buckets", f"expected numbers, got {value!r:.80}") from None
    is_rising = all(low < high for low, high in pairwise(bounds))
    if not bounds or not is_rising or not all(map(math.isfinite, bounds)):
        raise SpecError("buckets", f"expected rising upper bounds, got {value!r:.80}")
    return bounds


@frozen
class Counter:
    """A number that only grows, such as requests served.

    Args:
        help: What is counted; shown to those who read the metrics.
        labels: Values of each label, such as ``{"method": ("GET", "POST")}``. A value
            that is not declared counts as ``"other"``.
    """

    help: str = field(default="", converter=_help)
    labels: dict[str, tuple[str, ...]] = field(
        default=None, converter=_labels, kw_only=True
    )


@frozen
class Gauge:
    """A number that grows and shrinks, such as requests in progress.

    That of a process that has exited is gone.

    Args:
        help, labels: As for `Counter`.
    """

    help: str = field(default="", converter=_help)
    labels: dict[str, tuple[str, ...]] = field(
        default=None, converter=_labels, kw_only=True
    )


@frozen
class Histogram:
    """A distribution of observed numbers, such as durations [s].

    Args:
        help, labels: As for `Counter`.
        buckets: Upper bounds, rising. One bucket more takes what is above.
    """

    help: str = field(default="", converter=_help)
    labels: dict[str, tuple[str, ...]] = field(
        default=None, converter=_labels, kw_only=True
    )
    buckets: tuple[float, ...] = field(
        default=DEFAULT_BUCKETS, converter=_buckets, kw_only=True
    )


Metric: TypeAlias = Counter | Gauge | Histogram


class Metrics:
    """The metrics of a service, by name. Example::

        Metrics(requests_total=Counter(), active=Gauge(), latency_seconds=Histogram())

    Raises:
        SpecError: a name is not valid, or there are too many series.
    """

    def __init__(self, **metrics: Metric) -> None:
        for name, metric in metrics.items():
            if not _NAME.fullmatch(name):
                problem = "expected lower-case letters, digits and _"
                raise SpecError(f"metrics[{name!r}]", problem)
            if not isinstance(metric, Counter | Gauge | Histogram):
                problem = f"expected a Counter, Gauge or Histogram, got {metric!r:.80}"
                raise SpecError(f"metrics[{name!r}]", problem)
        self._metrics = dict(metrics)
        self._offsets: dict[str, int] = {}
        offset = 0
        for name, metric in self._metrics.items():
            self._offsets[name] = offset
            offset += width_of(metric) * len(list(series_of(metric)))
            if offset > MAX_SLOTS:
                problem = f"more than {MAX_SLOTS} numbers; use fewer labels or buckets"
                raise SpecError(f"metrics[{name!r}]", problem)
        self.slots = offset
        """Numbers that one worker has."""

    def __getitem__(self, name: str) -> Metric:
        return self._metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._metrics)

    def __len__(self) -> int:
        return len(self._metrics)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Metrics) and self._metrics == other._metrics

    def __hash__(self) -> int:
        return hash(tuple(self._metrics))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={each!r}" for name, each in self._metrics.items())
        return f"Metrics({inner})"

    def offset(self, name: str) -> int:
        """Return the place of the first number of *name*."""
        return self._offsets[name]


def kind_of(metric: Metric) -> str:
    """Return the type of *metric*, as metrics are exposed."""
    return type(metric).__name__.lower()


def width_of(metric: Metric) -> int:
    """Return how many numbers each series has: a histogram's buckets, and their sum."""
    return len(metric.buckets) + 2 if isinstance(metric, Histogram) else 1


def series_of(metric: Metric) -> Iterator[tuple[str, ...]]:
    """Return the values of the labels of each series, in the order of their places."""
    return product(*((*values, OTHER) for values in metric.labels.values()))
