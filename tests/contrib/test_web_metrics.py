"""What every web service counts."""

from __future__ import annotations

import pytest

from trio_supervisor import Counter, Metrics, SpecError
from trio_supervisor.contrib.web_metrics import (
    WEB_METRICS,
    RequestCounts,
    with_web_metrics,
)
from trio_supervisor.process.shared_numbers import local_numbers
from trio_supervisor.worker.metrics import WorkerMetrics


@pytest.fixture
def metrics() -> WorkerMetrics:
    """Return the numbers of one worker."""
    return WorkerMetrics(WEB_METRICS, local_numbers(WEB_METRICS.slots))


def test_request_is_in_flight_until_its_end(metrics: WorkerMetrics) -> None:
    request = RequestCounts(metrics).begin("GET")
    assert metrics.http_requests_in_flight.value == 1
    request.status = 204

    request.end()
    request.end()

    assert metrics.http_requests_in_flight.value == 0
    assert metrics.http_requests_total.labels(method="GET", status="2xx").value == 1
    assert metrics.http_request_duration_seconds.value == 1


def test_request_without_an_answer_has_no_status(metrics: WorkerMetrics) -> None:
    RequestCounts(metrics).begin("BREW").end()
    total = metrics.http_requests_total
    assert total.labels(method="other", status="other").value == 1


def test_metrics_of_the_service_are_kept() -> None:
    merged = with_web_metrics(Metrics(orders_total=Counter()))
    assert set(merged) == {"orders_total", *WEB_METRICS}
    assert with_web_metrics(None) == WEB_METRICS


def test_name_of_a_web_metric_is_taken() -> None:
    own = Metrics(http_requests_total=Counter())
    with pytest.raises(SpecError, match=r"metrics\.http_requests_total: is declared"):
        with_web_metrics(own)
