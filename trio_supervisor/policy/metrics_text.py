"""Write metrics in the formats that Prometheus scrapes. Pure.

Sources: "Exposition formats" of the Prometheus documentation; OpenMetrics 1.0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from attrs import frozen

from trio_supervisor.policy.metric_totals import Key, Totals, bound_text
from trio_supervisor.policy.metrics import Histogram, Metrics, kind_of, series_of

PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"
_SUFFIXES: Final = {
    "counter": ("_total", "_created"),
    "gauge": (),
    "summary": ("_count", "_sum", "_created"),
    "histogram": ("_bucket", "_count", "_sum", "_created"),
}
"""What the names of samples end with, by the kind of metric."""
OPEN: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@frozen
class Sample:
    """One line: a name, its labels, and the value."""

    name: str
    labels: Mapping[str, str]
    value: float


@frozen
class Family:
    """All samples of one metric."""

    name: str
    """Without the suffix ``_total`` of a counter."""
    kind: str
    help: str
    """What is counted; where none is declared, the name in words."""
    samples: tuple[Sample, ...]


def families_of(
    metrics: Metrics, totals: Totals, more: Mapping[str, str]
) -> Iterable[Family]:
    """Return the metrics of one service, or of one worker.

    Args:
        totals: Those that a histogram has had with other buckets count as well, in the
            next greater one.
        more: Labels of every sample, such as the service.
    """
    for name in metrics:
        metric, kind = metrics[name], kind_of(metrics[name])
        base = name.removesuffix("_total") if kind == "counter" else name
        samples: list[Sample] = []
        for values in series_of(metric):
            labels = {**more, **dict(zip(metric.labels, values, strict=True))}
            if isinstance(metric, Histogram):
                samples += _histogram(base, metric, values, labels, totals)
            else:
                suffix = "_total" if kind == "counter" else ""
                value = totals.get((kind, name, values, ""), 0.0)
                samples.append(Sample(base + suffix, labels, value))
        text = metric.help or f"{name.replace('_', ' ').capitalize()}."
        yield Family(base, kind, text, tuple(samples))


def _histogram(
    name: str,
    metric: Histogram,
    values: tuple[str, ...],
    labels: Mapping[str, str],
    totals: Totals,
) -> Iterable[Sample]:
    counts = [
        (_bound(key), total)
        for key, total in totals.items()
        if key[:3] == ("histogram", name, values) and key[3] != "sum"
    ]
    for bound in (*metric.buckets, math.inf):
        count = sum(total for upper, total in counts if upper <= bound)
        yield Sample(f"{name}_bucket", {**labels, "le": bound_text(bound)}, count)
    total = totals.get(("histogram", name, values, "sum"), 0.0)
    yield Sample(f"{name}_sum", labels, total)
    yield Sample(f"{name}_count", labels, sum(total for _, total in counts))


def _bound(key: Key) -> float:
    return math.inf if key[3] == "+Inf" else float(key[3])


def merged(families: Iterable[Family]) -> list[Family]:
    """Return *families* with those of one name as one, as the formats require.

    Where two services have different metrics by one name, or metrics whose samples have
    one name, the first one is shown, and only the samples of its type.
    """
    found: dict[str, Family] = {}
    owners: dict[str, str] = {}
    for each in families:
        names = [each.name, *(each.name + suffix for suffix in _SUFFIXES[each.kind])]
        if any(owners.setdefault(name, each.name) != each.name for name in names):
            continue
        first = found.setdefault(each.name, each)
        if first is not each and first.kind == each.kind:
            found[each.name] = Family(
                each.name,
                first.kind,
                first.help,
                first.samples + each.samples,
            )
    return list(found.values())


def to_lines(families: Iterable[Family], *, is_open: bool = False) -> Iterator[str]:
    """Return the lines that expose *families*.

    Args:
        is_open: Whether as OpenMetrics, rather than in Prometheus' own format.
    """
    for family in families:
        suffix = "_total" if family.kind == "counter" and not is_open else ""
        shown = family.name + suffix
        yield f"# HELP {shown} {_escaped(family.help, quotes=is_open)}"
        yield f"# TYPE {shown} {family.kind}"
        yield from map(_line, family.samples)
    if is_open:
        yield "# EOF"


def _line(sample: Sample) -> str:
    labels = ",".join(
        f'{name}="{_escaped(value, quotes=True)}"'
        for name, value in sample.labels.items()
    )
    return f"{sample.name}{{{labels}}} {_number(sample.value)}"


def _number(value: float) -> str:
    is_whole = value.is_integer() and abs(value) < 2**53
    return str(int(value)) if is_whole else repr(value)


def _escaped(text: str, *, quotes: bool) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text
