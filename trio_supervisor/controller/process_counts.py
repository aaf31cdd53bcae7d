"""What one process of a service has counted, read from its memory."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import lru_cache

from attrs import define, field, frozen

from trio_supervisor.controller.child.child import Child
from trio_supervisor.policy.client_metrics import (
    ProcessReadings,
    Reading,
    Readings,
    Series,
    parse_key,
)
from trio_supervisor.policy.metric_totals import ProcessNumbers, Totals
from trio_supervisor.policy.metrics import Metrics
from trio_supervisor.process.shared_counts import SharedCounts
from trio_supervisor.process.shared_numbers import SharedNumbers
from trio_supervisor.process.shared_values import SharedValues, entries_of

_series_of = lru_cache(maxsize=20_000)(parse_key)  # workers have the same keys


@define(eq=False)
class _DeclaredReader:
    """Reads the metrics that the service declares."""

    _shared: SharedNumbers
    _numbers: ProcessNumbers

    def totals(self, *, with_gauges: bool) -> Totals:
        with suppress(OSError):
            self._numbers.update(self._shared.read())
        return self._numbers.totals(with_gauges=with_gauges)


@define(eq=False)
class _ValueReader:
    """Reads the metrics of prometheus_client; a key is parsed once."""

    _shared: SharedValues
    _readings: ProcessReadings = field(factory=ProcessReadings, init=False)
    _places: list[tuple[Series, int]] = field(factory=list, init=False)
    _end: int = field(default=1, init=False)
    """The word of the table at which keys begin that are not parsed yet."""

    def readings(self, *, with_gauges: bool) -> Readings:
        with suppress(OSError):
            self._update(self._shared.read())
        return self._readings.readings(with_gauges=with_gauges)

    def _update(self, data: bytes) -> None:
        for key, place, end in entries_of(data, self._end):
            self._end = end
            if (series := _series_of(key)) is not None:
                self._places.append((series, place))
        numbers = memoryview(data[: len(data) & ~7]).cast("d")
        self._readings.update(
            (series, Reading(numbers[place], numbers[place + 1]))
            for series, place in self._places
            if place + 1 < len(numbers)
        )


@frozen(eq=False)
class ProcessCounts:
    """What one process has counted until now, or until `close`."""

    child: Child
    _shared: SharedCounts
    _declared: _DeclaredReader | None
    _values: _ValueReader | None
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    @classmethod
    def of(
        cls, child: Child, metrics: Metrics | None, shared: SharedCounts
    ) -> ProcessCounts:
        """Return the counts of the process of *child*, which writes to *shared*."""
        declared = values = None
        if shared.numbers is not None and metrics is not None:
            declared = _DeclaredReader(shared.numbers, ProcessNumbers(metrics))
        if shared.values is not None:
            values = _ValueReader(shared.values)
        return cls(child, shared, declared, values)

    def totals(self, *, with_gauges: bool = True) -> Totals:
        """Return the numbers of declared metrics."""
        if self._declared is None:
            return {}
        with self._lock:
            return self._declared.totals(with_gauges=with_gauges)

    def readings(self, *, with_gauges: bool = True) -> Readings:
        """Return the numbers of the metrics of prometheus_client."""
        if self._values is None:
            return {}
        with self._lock:
            return self._values.readings(with_gauges=with_gauges)

    def close(self) -> None:
        """Close the memory, but not while another thread reads it."""
        with self._lock:
            self._shared.close()
