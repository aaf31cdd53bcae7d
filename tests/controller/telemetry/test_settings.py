"""Test what the option and the variables of the environment mean."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

import pytest

from trio_supervisor.controller.telemetry.settings import TelemetrySettings
from trio_supervisor.errors import PlatformError, SpecError
from trio_supervisor.policy.trace_sampling import TraceSampling


def test_environment_may_disable_all() -> None:
    assert TelemetrySettings.read("env", {"OTEL_SDK_DISABLED": "True"}) is None


@pytest.mark.parametrize(
    ("otlp", "environ", "url", "shown"),
    [
        ("http://a:4318", {}, "http://a:4318/v1/metrics", "http://a:4318"),
        ("https://[::1]:1/", {}, "https://[::1]:1/v1/metrics", "https://[::1]:1"),
        ("http://u:p@a/secret", {}, "http://u:p@a/secret/v1/metrics", "http://a"),
        ("env", {}, None, "http://localhost:4318"),
        ("env", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b"}, None, "http://b"),
    ],
)
def test_endpoint(
    otlp: str, environ: Mapping[str, str], url: str | None, shown: str
) -> None:
    settings = TelemetrySettings.read(otlp, environ)
    assert settings is not None
    assert (settings.url("metrics"), settings.shown) == (url, shown)


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, 60.0),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "500"}, 0.5),
        ({"OTEL_METRICS_EXPORTER": "none"}, None),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, 60.0),
    ],
)
def test_interval(environ: Mapping[str, str], interval: float | None) -> None:
    settings = TelemetrySettings.read("http://a", environ)
    assert settings is not None
    assert settings.metrics_interval == interval


@pytest.mark.parametrize(
    ("environ", "sampling", "delay"),
    [
        ({}, TraceSampling(), 5.0),
        ({"OTEL_BSP_SCHEDULE_DELAY": "100"}, TraceSampling(), 0.1),
        ({"OTEL_TRACES_EXPORTER": "none"}, None, 5.0),
        (
            {"OTEL_TRACES_SAMPLER": "always_off"},
            TraceSampling(0.0, heeds_caller=False),
            5.0,
        ),
    ],
)
def test_traces(
    environ: Mapping[str, str], sampling: TraceSampling | None, delay: float
) -> None:
    settings = TelemetrySettings.read("http://a", environ)
    assert settings is not None
    assert (settings.sampling, settings.spans_delay) == (sampling, delay)
    assert settings.url("traces") == "http://a/v1/traces"


@pytest.mark.parametrize(
    ("otlp", "environ", "problem"),
    [
        ("collector:4318", {}, "otlp: expected http://HOST:PORT"),
        ("", {}, "otlp: expected"),
        ("http://", {}, "otlp: expected"),
        ("http://a:port", {}, "otlp: expected"),
        ("http://a?token=1", {}, "otlp: expected"),
        (
            "env",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "grpc://a"},
            "OTEL_EXPORTER_OTLP_ENDPOINT: expected",
        ),
        (
            "http://user:secret@h:99999/?key=secret",
            {},
            "otlp: expected http://HOST:PORT, https://HOST:PORT, or for --otlp also "
            "'env'; got 'http://h:99999/'",
        ),
        (
            "env",
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is supported, got 'grpc'",
        ),
        (
            "http://a",
            {"OTEL_METRIC_EXPORT_INTERVAL": "a minute"},
            "OTEL_METRIC_EXPORT_INTERVAL: expected milliseconds, at least 1",
        ),
        (
            "http://a",
            {"OTEL_METRIC_EXPORT_INTERVAL": "nan"},
            "OTEL_METRIC_EXPORT_INTERVAL: expected milliseconds, at least 1",
        ),
        (
            "http://a",
            {"OTEL_TRACES_SAMPLER": "some"},
            "OTEL_TRACES_SAMPLER: expected always_on",
        ),
        (
            "http://a",
            {"OTEL_BSP_SCHEDULE_DELAY": "0"},
            "OTEL_BSP_SCHEDULE_DELAY: expected milliseconds, at least 1",
        ),
        (
            "http://a",
            {"OTEL_METRICS_EXPORTER": "prometheus"},
            "OTEL_METRICS_EXPORTER: expected otlp or none, got 'prometheus'",
        ),
    ],
)
def test_mistake_is_named(otlp: str, environ: Mapping[str, str], problem: str) -> None:
    with pytest.raises(SpecError) as info:
        TelemetrySettings.read(otlp, environ)
    assert str(info.value).startswith(problem)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PlatformError, match=r"pip install 'trio_supervisor\[otel\]'"):
        TelemetrySettings.read("http://a", {})
