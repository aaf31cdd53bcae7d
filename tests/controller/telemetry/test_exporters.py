"""Test exports to real receivers, without a controller."""

from __future__ import annotations

import logging
import socket

import pytest
from opentelemetry.sdk.metrics.export import MetricsData

from tests.kits.otlp import receiving
from trio_supervisor.controller.telemetry.delivery import Refusal
from trio_supervisor.controller.telemetry.exporters import (
    SCOPE,
    export_metrics,
    metric_exporter,
    resource_of,
)
from trio_supervisor.controller.telemetry.otlp_metrics import (
    OtlpMetrics,
)
from trio_supervisor.controller.telemetry.settings import (
    TelemetrySettings,
)


def settings(url: str) -> TelemetrySettings:
    return TelemetrySettings(endpoint=url, shown=url, metrics_interval=1)


def data() -> MetricsData:
    return OtlpMetrics(resource_of("shop"), SCOPE, 1).data([], 2)


def test_resource_is_overridden_by_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert resource_of("shop").attributes["service.name"] == "shop"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=h,deployment=test")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "store")
    found = resource_of("shop").attributes
    assert (found["service.name"], found["host.name"]) == ("store", "h")
    assert found["deployment"] == "test"
    assert found["service.instance.id"]


def test_headers_and_compression_are_those_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    with receiving() as receiver:
        assert export_metrics(metric_exporter(settings(receiver.url)), data()) == ""
        assert receiver.headers[0]["api-key"] == "secret"
        assert receiver.headers[0]["Content-Encoding"] == "gzip"
        assert receiver.resource()["service.name"] == "shop"


def test_failed_export_says_why_at_once_and_logs_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter itself would try for ten seconds, and log each attempt."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        absent = f"http://127.0.0.1:{server.getsockname()[1]}"
    problem = export_metrics(metric_exporter(settings(absent)), data())
    assert problem == "[Errno 111] Connection refused"
    with receiving() as receiver:
        exporter = metric_exporter(settings(receiver.url))
        for receiver.status, expected in [
            (404, "404, reason: Not Found"),
            (503, "Service Unavailable"),
        ]:
            problem = export_metrics(exporter, data())
            assert expected in problem
            assert isinstance(problem, Refusal) == (receiver.status == 404)
        receiver.hangs = True
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.05")
        hasty = metric_exporter(settings(receiver.url))
        assert export_metrics(hasty, data()) == (
            "no success within the timeout (OTEL_EXPORTER_OTLP_TIMEOUT)"
        )
    assert caplog.records == []


def test_other_exports_of_the_process_log_as_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with receiving() as receiver:
        exporter = metric_exporter(settings(receiver.url))
        assert export_metrics(exporter, data()) == ""
        receiver.status = 404
        exporter.export(data())  # as a program that embeds the controller does
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
