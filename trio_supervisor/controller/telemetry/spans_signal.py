"""Export spans soon after they have ended, and what is left at the end."""

from __future__ import annotations

import logging
from functools import partial
from typing import Final

import trio
from attrs import define, field
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource

from trio_supervisor.controller.telemetry.delivery import Delivery
from trio_supervisor.controller.telemetry.exporters import (
    export_spans,
    span_exporter,
)
from trio_supervisor.controller.telemetry.otlp_spans import OtlpSpans
from trio_supervisor.controller.telemetry.settings import TelemetrySettings
from trio_supervisor.controller.telemetry.spans import FinishedSpan, SpanQueue

logger = logging.getLogger(__name__)

_BATCH: Final = 512


@define(eq=False)
class SpansSignal:
    """Sends what is in a queue; what a receiver does not take stays there."""

    _resource: Resource
    _settings: TelemetrySettings
    _queue: SpanQueue
    _delivery: Delivery = field(init=False)
    _spans: OtlpSpans = field(init=False)
    _exporter: OTLPSpanExporter = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._delivery = Delivery("spans", self._settings.shown)
        self._spans = OtlpSpans(self._resource)
        self._exporter = span_exporter(self._settings)

    async def run(self) -> None:
        """Export until cancelled."""
        while True:
            await trio.sleep(max(self._settings.spans_delay, self._delivery.delay))
            await self._send_all()

    async def finish(self) -> None:
        """Export what is left."""
        await self._delivery.finish(self._send_all, self._settings.last_within)

    async def _send_all(self) -> None:
        while len(self._queue):
            batch, is_sent = self._queue.take(_BATCH), False
            try:
                is_sent = await self._delivery.send(partial(self._export, batch))
            finally:
                if not (is_sent or self._delivery.is_refused):
                    self._queue.put_back(batch)
            if not is_sent and self._delivery.is_refused:
                logger.warning("%d spans were dropped: they were refused", len(batch))
            if not is_sent:
                return
            if dropped := self._queue.take_dropped():
                logger.warning("%d spans were dropped: too many at once", dropped)

    def _export(self, batch: list[FinishedSpan]) -> str:
        return export_spans(self._exporter, self._spans.spans(batch))
