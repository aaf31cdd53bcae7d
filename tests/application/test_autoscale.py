"""Declaring that the load decides the number of workers."""

from __future__ import annotations

from typing import Any

import pytest

from trio_supervisor import (
    Application,
    Autoscale,
    Command,
    Counter,
    Gauge,
    Histogram,
    Metrics,
    Service,
    SpecError,
    Worker,
)
from trio_supervisor.application import (
    application_from_plain,
    application_to_plain,
    facts_of,
)
from trio_supervisor.application.autoscale import worker_count

AUTOSCALE = Autoscale(minimum=2, maximum=16, metric="active", per_worker=8)
METRICS = Metrics(active=Gauge(), seen_total=Counter(), seconds=Histogram())


async def serve(worker: Worker) -> None:
    """Do nothing."""


def service(autoscale: Any = AUTOSCALE, metrics: Any = METRICS) -> Service:
    return Service("web", serve, count=autoscale, metrics=metrics)


def test_service_starts_with_the_minimum() -> None:
    made = service()
    assert made.count == 2
    assert made.autoscale == AUTOSCALE
    assert Service("web", serve, count=3).autoscale is None


def test_counters_are_accepted() -> None:
    scale = Autoscale(maximum=4, metric="seen_total", per_worker=100)
    assert service(scale).count == 1


def test_it_survives_the_plain_form() -> None:
    plain = application_to_plain(Application([service()]))
    assert plain["services"][0]["count"]["maximum"] == 16
    (again,) = application_from_plain(plain).services
    assert isinstance(again, Service)
    assert (again.count, again.autoscale) == (2, AUTOSCALE)


def test_a_change_is_in_the_plan_of_a_reload() -> None:
    before = facts_of(service()).declaration["autoscale"]
    assert before == (
        "2 to 16 workers, 70% of 8 active each, asked every 5 s, fewer after 120 s"
    )
    assert "autoscale" not in facts_of(service(2)).declaration


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"maximum": 1}, "maximum: expected at least minimum (2), got 1"),
        ({"minimum": 0}, "minimum: expected 1 or more, got 0"),
        ({"per_worker": 0}, "per_worker: expected 1e-06 or more, got 0"),
        ({"per_worker": "8"}, "per_worker: expected a number, got '8'"),
        ({"per_worker": True}, "per_worker: expected a number, got True"),
        ({"target": 1.5}, "target: expected at most 1, got 1.5"),
        ({"metric": 5}, "metric: expected the name of a metric, got 5"),
        ({"interval": 0}, "interval: expected 0.1 to "),
        ({"scale_down_after": -1}, "scale_down_after: expected 0"),
    ],
)
def test_wrong_option_is_named(options: dict[str, Any], problem: str) -> None:
    right = {"minimum": 2, "maximum": 16, "metric": "active", "per_worker": 8}
    with pytest.raises(SpecError) as caught:
        Autoscale(**{**right, **options})
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("metric", "problem"),
    [
        ("actve", "no metric 'actve' (did you mean 'active'?)"),
        ("seconds", "expected a gauge or a counter"),
    ],
)
def test_metric_must_be_one_of_the_service(metric: str, problem: str) -> None:
    scale = Autoscale(maximum=4, metric=metric, per_worker=8)
    with pytest.raises(SpecError) as caught:
        service(scale)
    assert problem in str(caught.value)
    with pytest.raises(SpecError, match="no metric"):
        service(scale, None)


def test_a_command_has_no_metrics() -> None:
    with pytest.raises(SpecError, match="a Command has no metrics"):
        Command("redis", ["redis-server"], count=AUTOSCALE)


def test_other_counts_are_checked_as_before() -> None:
    assert worker_count(3, "count", least=0) == 3
    with pytest.raises(SpecError, match="count: expected"):
        service("3")
