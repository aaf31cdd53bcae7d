"""Make the exporters of OpenTelemetry, and call them without their own retries."""

from __future__ import annotations

import logging
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from opentelemetry.context import (
    _SUPPRESS_INSTRUMENTATION_KEY,
    attach,
    detach,
    set_value,
)
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from trio_supervisor._version import __version__
from trio_supervisor.controller.telemetry.delivery import Refusal
from trio_supervisor.controller.telemetry.settings import TelemetrySettings

SCOPE: Final = InstrumentationScope("trio_supervisor", __version__)
_LOGGERS: Final = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)
# Every status but 429, 502, 503 and 504: "OTLP/HTTP Response" of its specification. Of
# those, the exporters log a transient error.
_FOR_GOOD: Final = re.compile(
    r"code: \d{3}, reason|exceeds max_request_size|to encode "
)
_ours: ContextVar[bool] = ContextVar("_ours", default=False)
"""Whether an export of ours runs in this thread."""


class _Reported(Exception):  # noqa: N818 (ends an export, and is no error of ours)
    """What an exporter wanted to log."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class _Reports(logging.Filter):
    """Ends an export of ours at the first thing that its exporter logs.

    The exporters log each attempt, and repeat it for ten seconds. `Delivery` logs a
    failure once and has a backoff of its own. Exports of the program that embeds the
    controller are not affected.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if not _ours.get():
            return True
        raise _Reported(_problem_of(record))


_REPORTS: Final = _Reports()


def _without_value(record: logging.LogRecord) -> bool:
    """Leave out a malformed header, which may be a secret."""
    record.msg, record.args = "a header of OTEL_EXPORTER_OTLP_HEADERS is malformed", ()
    return True


logging.getLogger("opentelemetry.util.re").addFilter(_without_value)


def resource_of(name: str) -> Resource:
    """Return what describes this process; the environment overrides each attribute.

    Args:
        name: Name of the application.
    """
    own: dict[str, str | int] = {
        "service.name": name,
        "service.instance.id": str(uuid.uuid4()),
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
    }
    # Without attributes it holds those of the SDK itself.
    return Resource.create().merge(Resource(own)).merge(OTELResourceDetector().detect())


def metric_exporter(settings: TelemetrySettings) -> OTLPMetricExporter:
    """Return an exporter; headers, certificates and so on are of the environment."""
    return OTLPMetricExporter(endpoint=settings.url("metrics"))


def span_exporter(settings: TelemetrySettings) -> OTLPSpanExporter:
    """Return an exporter, as `metric_exporter` does."""
    return OTLPSpanExporter(endpoint=settings.url("traces"))


def export_metrics(exporter: OTLPMetricExporter, data: MetricsData) -> str:
    """Send once; return what went wrong, or an empty string."""
    return _export(lambda: exporter.export(data) is MetricExportResult.SUCCESS)


def export_spans(exporter: OTLPSpanExporter, spans: Sequence[ReadableSpan]) -> str:
    """Send once; return what went wrong, or an empty string."""
    return _export(lambda: exporter.export(spans) is SpanExportResult.SUCCESS)


def _export(send: Callable[[], bool]) -> str:
    try:
        with _without_retries():
            is_sent = send()
    except _Reported as exc:
        return exc.problem
    return "" if is_sent else "the export failed"


@contextmanager
def _without_retries() -> Iterator[None]:
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_REPORTS)  # once, however often it is called
    is_ours = _ours.set(True)
    # An instrumentation of HTTP clients must not trace the exports themselves.
    token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        yield
    finally:
        detach(token)
        _ours.reset(is_ours)


def _problem_of(record: logging.LogRecord) -> str:
    """Return what *record* of an exporter says, without what does not apply here."""
    message = record.getMessage()
    if _FOR_GOOD.search(message):
        return Refusal(message)
    if "due to timeout" in message:
        return "no success within the timeout (OTEL_EXPORTER_OTLP_TIMEOUT)"
    first = record.args[0] if isinstance(record.args, tuple) and record.args else ""
    if isinstance(first, Exception):
        cause = first.args[0] if first.args else first
        cause = getattr(cause, "reason", cause)  # urllib3 wraps it
        return str(cause).rpartition(": ")[2]
    # "Transient error Service Unavailable encountered …, retrying": not by itself.
    return str(first) if message.startswith("Transient error") else message
