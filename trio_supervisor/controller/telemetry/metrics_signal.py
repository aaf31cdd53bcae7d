"""Export metrics at intervals, and once more at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import trio
from attrs import define, field
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.resources import Resource

from trio_supervisor.controller.metrics import MetricsSource, collect
from trio_supervisor.controller.telemetry.delivery import Delivery
from trio_supervisor.controller.telemetry.exporters import (
    SCOPE,
    export_metrics,
    metric_exporter,
)
from trio_supervisor.controller.telemetry.otlp_metrics import OtlpMetrics
from trio_supervisor.controller.telemetry.settings import TelemetrySettings
from trio_supervisor.controller.worker_figures import figures_of, loop_lags_of


@define(eq=False)
class MetricsSignal:
    """Sends what ``/metrics`` shows; figures are read in the event loop."""

    _source: MetricsSource
    _resource: Resource
    _settings: TelemetrySettings
    _interval: float
    _delivery: Delivery = field(init=False)
    _metrics: OtlpMetrics = field(init=False)
    _exporter: OTLPMetricExporter = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._delivery = Delivery("metrics", self._settings.shown)
        began = int(self._source.metrics.began * 1e9)
        self._metrics = OtlpMetrics(self._resource, SCOPE, began)
        self._exporter = metric_exporter(self._settings)

    async def run(self) -> None:
        """Export until cancelled."""
        while True:
            await trio.sleep(max(self._interval, self._delivery.delay))
            await self._send()

    async def finish(self) -> None:
        """Export once more."""
        await self._delivery.finish(self._send, self._settings.last_within)

    async def _send(self) -> None:
        await self._delivery.send(await self._sending())

    async def _sending(self) -> Callable[[], str]:
        """Return what collects and sends in a thread."""
        figures, lags = await figures_of(self._source), loop_lags_of(self._source)
        families = partial(collect, self._source, figures, lags, per_worker=False)

        def send() -> str:
            data = self._metrics.data(families(), time.time_ns())
            return export_metrics(self._exporter, data)

        return send
