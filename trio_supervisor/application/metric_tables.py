"""Convert metrics to tables of plain data and back, for TOML and the wire. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from trio_supervisor.application import checks
from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.metrics import (
    Counter,
    Gauge,
    Histogram,
    Metric,
    Metrics,
    kind_of,
)

KINDS: Final[Mapping[str, Callable[..., Metric]]] = {
    "counter": Counter,
    "gauge": Gauge,
    "histogram": Histogram,
}


def metrics_to_tables(metrics: Metrics) -> dict[str, dict[str, Any]]:
    """Return a table for each metric."""
    return {name: _to_table(metrics[name]) for name in metrics}


def metrics_from_tables(value: Any, field: str = "metrics") -> Metrics:
    """Return the metrics of a table of tables; a text stands for ``{type = TEXT}``.

    Raises:
        SpecError: something is not valid; the message has its path.
    """
    found = {
        name: _from_table(table, f"{field}.{name}")
        for name, table in checks.dictionary(value, field).items()
    }
    return Metrics(**found)


def _to_table(metric: Metric) -> dict[str, Any]:
    labels = {name: list(values) for name, values in metric.labels.items()}
    table: dict[str, Any] = {
        "type": kind_of(metric),
        "help": metric.help,
        "labels": labels,
    }
    if isinstance(metric, Histogram):
        table["buckets"] = list(metric.buckets)
    return table


def _from_table(value: Any, field: str) -> Metric:
    fields = {"type": value} if isinstance(value, str) else value
    fields = checks.dictionary(fields, field)
    kind = checks.one_of(
        fields.pop("type", None), f"{field}.type", choices=tuple(KINDS)
    )
    known = ("help", "labels", "buckets")[: 3 if kind == "histogram" else 2]
    if unknown := [name for name in fields if name not in known]:
        hint = did_you_mean(unknown[0], known)
        problem = f"unknown key{hint}; expected {', '.join(('type', *known))}"
        raise SpecError(f"{field}.{unknown[0]}", problem)
    try:
        return KINDS[kind](**fields)
    except SpecError as exc:
        raise SpecError(f"{field}.{exc.field}", exc.problem) from None
