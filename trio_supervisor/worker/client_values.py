"""Have prometheus_client count in memory that the controller reads.

Its metrics keep their numbers in objects of ``prometheus_client.values.ValueClass``,
which its own multiprocess mode replaces as well. This is imported only in workers of a
service with ``prometheus_client=True``.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Final

from trio_supervisor.errors import SupervisorError
from trio_supervisor.policy.client_metrics import key_of
from trio_supervisor.process.shared_values import ValueTable

logger = logging.getLogger("trio_supervisor.worker")

_COMPUTED: Final = "_child_samples"
"""Attribute that ``Gauge.set_function`` sets."""
_KINDS: Final = ("counter", "gauge", "summary", "histogram")


def count_in(table: ValueTable) -> None:
    """Have all metrics of this process write to *table*.

    Those that exist already, in the default registry, start again: a counter at 0, as
    the parent counted before; a gauge keeps its value.

    Raises:
        SupervisorError: prometheus_client cannot be imported.
    """
    try:
        from prometheus_client import REGISTRY, Gauge, values
    except ImportError as exc:
        raise SupervisorError(f"prometheus_client: {exc}") from exc
    is_ours: Any = values
    is_ours.ValueClass = _value_class(table)
    _leave_out_functions(Gauge)
    collectors = list(getattr(REGISTRY, "_collector_to_names", ()))
    for metric in [one for each in collectors for one in _observed(each)]:
        before = metric._value.get() if _is_gauge(metric) else None
        metric._metric_init()
        if before is not None:
            is_computed = _COMPUTED in vars(metric)
            metric._value.set(math.nan if is_computed else before)


def _leave_out_functions(gauge: Any) -> None:
    """Have gauges with a function, which only the process can call, not be shown."""
    original = gauge.set_function
    if getattr(original, "is_ours", False):
        return

    def set_function(self: Any, function: Any) -> None:
        original(self, function)
        self._value.set(math.nan)

    set_function.is_ours = True  # type: ignore[attr-defined]
    gauge.set_function = set_function


def _observed(metric: Any) -> Iterator[Any]:
    """Return *metric* and its children, as far as they count."""
    if not hasattr(metric, "_metric_init"):
        return  # a collector of the application's own
    if metric._type not in _KINDS:
        return  # an ``Info`` or ``Enum``, which have no number
    if metric._is_observable():
        yield metric
    yield from getattr(metric, "_metrics", {}).values()


def _is_gauge(metric: Any) -> bool:
    return bool(metric._type == "gauge")


def _value_class(table: ValueTable) -> type:
    """Return a class of values in *table*, to be used as ``ValueClass``."""
    places: dict[bytes, int] = {}
    process_id = os.getpid()
    shared: list[Any] = [table.numbers]
    lock = threading.Lock()
    is_full = False

    def count_alone() -> None:
        # A child that the worker has forked itself would write over its numbers.
        shared[0] = array("d", shared[0])

    os.register_at_fork(after_in_child=count_alone)

    class SharedValue:
        """A number of a metric. Single statements without a call need no lock."""

        _multiprocess = True  # exemplars are not supported, as in its own mode
        __slots__ = ("_memory", "_place")

        def __init__(
            self,
            typ: str,
            metric_name: str,
            name: str,
            labelnames: Sequence[str],
            labelvalues: Sequence[str],
            help_text: str,
            multiprocess_mode: str = "",
            **_: Any,
        ) -> None:
            labels = tuple(zip(labelnames, map(str, labelvalues), strict=True))
            key = key_of(typ, multiprocess_mode, metric_name, name, labels, help_text)
            self._memory = shared
            self._place = self._find(key, name)

        def _find(self, key: bytes, name: str) -> int:
            nonlocal is_full
            if os.getpid() == process_id:
                with lock:
                    if (place := places.get(key) or table.add(key)) is not None:
                        places[key] = place
                        return place
                if not is_full:
                    is_full = True
                    logger.warning(
                        "prometheus_client: too many series, or too long labels: "
                        "%s and other series without room are not collected",
                        name,
                    )
            self._memory = [[0.0, 0.0]]
            return 0

        def inc(self, amount: float) -> None:
            self._memory[0][self._place] += amount

        def set(self, value: float, timestamp: float | None = None) -> None:
            self._memory[0][self._place] = value
            self._memory[0][self._place + 1] = timestamp or 0.0

        def get(self) -> float:
            return float(self._memory[0][self._place])

        def set_exemplar(self, exemplar: object) -> None:
            pass

        def get_exemplar(self) -> None:
            return None

    return SharedValue
