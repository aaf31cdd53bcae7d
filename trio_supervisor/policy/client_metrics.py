"""Metrics that workers count with prometheus_client: read, add up, expose. Pure.

Keys come from the memory of a worker, which may have written anything there: one that
is not well formed does not count.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from attrs import define, field, frozen

from trio_supervisor.policy.metrics_text import Family, Sample

Labels = tuple[tuple[str, str], ...]

MOST_KEPT: Final = 20_000
"""Series that are kept of the exited processes of a service."""
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "counter": ("_total",),
    "gauge": ("",),
    "summary": ("_count", "_sum"),
    "histogram": ("_bucket", "_sum"),
}
"""By kind of metric: what the names of its samples end with."""
_RESERVED: Final = "trio_supervisor_"
_OWN_LABELS: Final = ("service", "worker")


@frozen(cache_hash=True)
class Series:
    """One series of a metric of prometheus_client."""

    kind: str
    """``counter``, ``gauge``, ``summary`` or ``histogram``."""
    mode: str
    """Of a gauge: its ``multiprocess_mode``."""
    metric: str
    sample: str
    """Name of the sample: that of the metric, with a suffix."""
    labels: Labels
    help: str = field(eq=False)


@frozen
class Reading:
    """A number of one process, and when it was last set [s since the epoch]."""

    value: float
    set_at: float = 0.0


Readings = dict[Series, Reading]


def key_of(
    kind: str, mode: str, metric: str, sample: str, labels: Labels, text: str
) -> bytes:
    """Return the key of a series in a table of values."""
    return json.dumps([kind, mode, metric, sample, labels, text]).encode()


def parse_key(key: bytes) -> Series | None:
    """Return the series with *key*; None: it is not well formed."""
    try:
        kind, mode, metric, sample, pairs, text = json.loads(key)
        labels = tuple((_label(str(name)), _clean(str(value))) for name, value in pairs)
    except (ValueError, TypeError, RecursionError):
        return None
    words = (kind, mode, metric, sample, text)
    if not all(isinstance(word, str) for word in words):
        return None
    if not _NAME.fullmatch(metric) or metric.startswith(_RESERVED):
        return None
    if sample not in [metric + suffix for suffix in _SUFFIXES.get(kind, ())]:
        return None
    names = [name for name, _ in labels]
    if len(set(names)) < len(names) or not all(map(_LABEL.fullmatch, names)):
        return None
    if sample.endswith("_bucket") and kind == "histogram" and _bound(labels) is None:
        return None
    return Series(kind, mode, metric, sample, labels, _clean(text))


def _clean(text: str) -> str:
    """Return *text* as it can be sent: without lone surrogates, as of file names."""
    return text.encode("utf-8", "replace").decode()


def _label(name: str) -> str:
    """Return *name*; as Prometheus does, keep one apart that we have ourselves."""
    return f"exported_{name}" if name in _OWN_LABELS else name


def _bound(labels: Labels) -> float | None:
    try:
        bound = float(dict(labels)["le"])
    except (KeyError, ValueError):
        return None
    return None if math.isnan(bound) else bound


@define(eq=False)
class ProcessReadings:
    """What one process has counted, as far as it is known."""

    _last: Readings = field(factory=dict, init=False)
    _before: dict[Series, float] = field(factory=dict, init=False)
    """What was counted before ``reset``, which begins at 0 again."""

    def update(self, found: Iterable[tuple[Series, Reading]]) -> None:
        """Take in what the process has written.

        A number that is not finite does not count. A counter that shrank was reset:
        what it had counted is kept. Metrics of one name in several registries add up.
        """
        sums: Readings = {}
        for series, reading in found:
            known = sums.get(series)
            if known is None or series.kind == "gauge":
                sums[series] = reading
            else:
                sums[series] = _joined("sum", known, reading)
        for series, reading in sums.items():
            is_gauge = series.kind == "gauge"
            if is_gauge and math.isnan(reading.value):
                self._last.pop(series, None)
            elif is_gauge:
                self._last[series] = reading
            elif math.isfinite(reading.value):
                last = self._last.get(series, Reading(0.0)).value
                if reading.value < last and _only_grows(series):
                    if reading.value < 0:
                        continue
                    self._before[series] = self._before.get(series, 0.0) + last
                self._last[series] = reading

    def readings(self, *, with_gauges: bool = True) -> Readings:
        """Return the numbers by series."""
        return {
            series: Reading(reading.value + before, reading.set_at)
            if (before := self._before.get(series))
            else reading
            for series, reading in self._last.items()
            if with_gauges or series.kind != "gauge"
        }


def _only_grows(series: Series) -> bool:
    """Return whether it is no sum, to which negative numbers may be added."""
    return series.kind == "counter" or not series.sample.endswith("_sum")


def kept(before: Readings, more: Readings) -> Readings:
    """Return what is kept of exited processes: *before*, and of one more.

    Further series than `MOST_KEPT` are dropped: labels of any value, such as the id of
    a user, must not fill the memory.
    """
    found = dict(before)
    for series, reading in more.items():
        if (known := found.get(series)) is not None:
            found[series] = Reading(known.value + reading.value)
        elif len(found) < MOST_KEPT:
            found[series] = reading
    return found


def added(
    gone: Readings, present: Iterable[tuple[str, Readings]]
) -> list[tuple[Series, Labels, float]]:
    """Add up a service's series over its processes, as their kinds ask for.

    Args:
        gone: Those of exited processes: no gauges.
        present: Those of each process, with the name of its worker, which two processes
            may have during a reload.

    Returns:
        Each series with further labels, and its value. Gauges of the modes ``all`` and
        ``liveall`` have one for each worker; gauges of exited processes are not shown.
    """
    sums: dict[tuple[Series, Labels], Reading] = {
        (series, ()): reading for series, reading in gone.items()
    }
    for worker, readings in present:
        for series, reading in readings.items():
            mode = series.mode.removeprefix("live")
            is_single = series.kind == "gauge" and mode not in _JOINED
            key = (series, (("worker", worker),) if is_single else ())
            known = None if is_single else sums.get(key)
            sums[key] = reading if known is None else _joined(mode, known, reading)
    return [(series, more, each.value) for (series, more), each in sums.items()]


def _joined(mode: str, one: Reading, other: Reading) -> Reading:
    if mode == "mostrecent":
        return max(one, other, key=lambda each: each.set_at)
    if mode in ("min", "max"):
        choose = min if mode == "min" else max
        return choose(one, other, key=lambda each: each.value)
    return Reading(one.value + other.value)


_JOINED: Final = ("min", "max", "sum", "mostrecent")


def families(
    found: Iterable[tuple[Series, Labels, float]], more: Mapping[str, str]
) -> Iterator[Family]:
    """Return series as metrics to expose, with the labels *more* in front.

    The counts of a histogram's buckets are added up, as Prometheus expects them.
    """
    groups: dict[tuple[str, str], list[tuple[Series, Labels, float]]] = {}
    for each in found:
        groups.setdefault((each[0].metric, each[0].kind), []).append(each)
    for (metric, kind), group in groups.items():
        if kind == "histogram":
            samples = list(_histogram(metric, group, more))
        else:
            samples = [
                Sample(series.sample, {**more, **dict(extra + series.labels)}, value)
                for series, extra, value in group
            ]
        text = group[0][0].help or f"{metric.replace('_', ' ').capitalize()}."
        yield Family(metric, kind, text, tuple(samples))


def _histogram(
    metric: str, group: list[tuple[Series, Labels, float]], more: Mapping[str, str]
) -> Iterator[Sample]:
    buckets: dict[Labels, list[tuple[float, str, float]]] = {}
    sums: dict[Labels, float] = {}
    for series, extra, value in group:
        labels = extra + tuple(pair for pair in series.labels if pair[0] != "le")
        if series.sample.endswith("_sum"):
            sums[labels] = value
        else:
            shown = dict(series.labels)["le"]
            buckets.setdefault(labels, []).append((float(shown), shown, value))
    for labels, counts in buckets.items():
        common: dict[str, Any] = {**more, **dict(labels)}
        total = 0.0
        for bound, shown, value in sorted(counts):
            total += value
            text = "+Inf" if bound == math.inf else shown
            yield Sample(f"{metric}_bucket", {**common, "le": text}, total)
        if max(counts)[0] < math.inf:
            yield Sample(f"{metric}_bucket", {**common, "le": "+Inf"}, total)
        if min(counts)[0] >= 0:  # else OpenMetrics forbids both: the sum may shrink
            yield Sample(f"{metric}_sum", common, sums.get(labels, 0.0))
            yield Sample(f"{metric}_count", common, total)
