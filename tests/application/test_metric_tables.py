"""Metrics as tables of plain data."""

from __future__ import annotations

from typing import Any

import pytest

from trio_supervisor.application.metric_tables import (
    metrics_from_tables,
    metrics_to_tables,
)
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.metrics import Counter, Gauge, Histogram, Metrics


def test_tables_describe_metrics_in_full() -> None:
    metrics = Metrics(
        requests_total=Counter("Requests.", labels={"method": ["GET"]}),
        active=Gauge(),
        seconds=Histogram(buckets=[1, 2]),
    )
    assert metrics_from_tables(metrics_to_tables(metrics)) == metrics


def test_a_text_stands_for_its_type() -> None:
    assert metrics_from_tables({"a": "gauge"}) == Metrics(a=Gauge())


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        ([], "metrics: expected a dictionary"),
        ({"a": "gage"}, "metrics.a.type: "),
        ({"a": {}}, "metrics.a.type: "),
        ({"a": {"type": "gauge", "buckets": []}}, "metrics.a.buckets: unknown key"),
        ({"a": {"type": "gauge", "hepl": ""}}, "metrics.a.hepl: .*help"),
        ({"a": {"type": "histogram", "buckets": [2, 1]}}, "metrics.a.buckets: .*ris"),
    ],
)
def test_mistake_has_its_path(tables: Any, problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        metrics_from_tables(tables)
