"""Declarations of metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trio_supervisor.errors import SpecError
from trio_supervisor.policy.metrics import (
    MAX_SLOTS,
    Counter,
    Gauge,
    Histogram,
    Metrics,
    series_of,
    width_of,
)


def test_each_series_has_its_place() -> None:
    metrics = Metrics(
        requests_total=Counter(labels={"method": ["GET", "POST"], "ok": ["yes"]}),
        active=Gauge("Requests in progress."),
        seconds=Histogram(buckets=[0.1, 1]),
    )
    assert list(metrics) == ["requests_total", "active", "seconds"]
    assert [metrics.offset(name) for name in metrics] == [0, 6, 7]
    assert metrics.slots == 6 + 1 + 4  # two buckets, the one above, and the sum
    assert list(series_of(metrics["requests_total"]))[1] == ("GET", "other")
    assert width_of(metrics["seconds"]) == 4


def test_the_value_other_may_be_declared() -> None:
    assert Counter(labels={"a": ["x", "other"]}) == Counter(labels={"a": ["x"]})


def any_of(value: object) -> Any:
    """Return *value*, whose type is wrong."""
    return value


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Metrics(Requests=Counter()), "lower-case"),
        (lambda: Metrics(**{"a b": Counter()}), "lower-case"),
        (lambda: Metrics(a=any_of(1)), "expected a Counter, Gauge or Histogram, got 1"),
        (lambda: Counter(7), "help: expected a text, got 7"),
        (lambda: Counter(labels=any_of(["a"])), "labels: expected a mapping"),
        (lambda: Counter(labels={"le": ["1"]}), "but none of service, worker, le"),
        (lambda: Counter(labels={"a": "GET"}), "expected a list of its values"),
        (lambda: Counter(labels={"a": ["x", "x"]}), "expected different texts"),
        (lambda: Counter(labels={"a": any_of([1])}), "expected different texts"),
        (lambda: Histogram(buckets=[]), "rising upper bounds"),
        (lambda: Histogram(buckets=[1, 1]), "rising upper bounds"),
        (lambda: Histogram(buckets=[1, float("inf")]), "rising upper bounds"),
        (lambda: Histogram(buckets=any_of("ab")), "expected numbers"),
        (
            lambda: Metrics(a=Counter(labels={"a": [str(n) for n in range(5000)]})),
            f"more than {MAX_SLOTS} numbers",
        ),
    ],
)
def test_mistake_is_named(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        make()
