"""Export by OpenTelemetry for as long as a controller runs."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from typing import Protocol

import trio
from attrs import define, field

from trio_supervisor.controller.events import Event
from trio_supervisor.controller.metrics import MetricsSource
from trio_supervisor.controller.telemetry.settings import TelemetrySettings
from trio_supervisor.controller.telemetry.spans import SpanQueue, span_of_call
from trio_supervisor.controller.telemetry.worker_spans import WorkerSpans
from trio_supervisor.process.threads import run_in_thread
from trio_supervisor.tasks import open_nursery
from trio_supervisor.wire.controller_messages import CallSpan
from trio_supervisor.wire.trace_context import current_context

logger = logging.getLogger(__name__)


class Signal(Protocol):
    """One kind of data that is exported."""

    async def run(self) -> None:
        """Export until cancelled."""
        ...

    async def finish(self) -> None:
        """Export what is left, within a bounded time."""
        ...


@define(eq=False)
class Telemetry:
    """Exports what its settings ask for; `run` is a task of the controller.

    Everything that may wait runs in threads: a receiver that hangs delays nothing but
    later exports.
    """

    _source: MetricsSource
    _settings: TelemetrySettings
    _signals: list[Signal] = field(factory=list, init=False)
    _loaded: trio.Event = field(factory=trio.Event, init=False)
    _queue: SpanQueue = field(factory=SpanQueue, init=False)
    _workers: WorkerSpans | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if self._settings.sampling is not None:
            self._workers = WorkerSpans(
                self._settings.sampling, lambda size: os.urandom(size).hex()
            )

    async def run(self) -> None:
        """Export until cancelled."""
        try:
            # In a thread, so that the import does not delay the start of workers.
            self._signals = await run_in_thread(self._load)
        except Exception as exc:
            logger.error("nothing is exported by OTLP: %s: %s", type(exc).__name__, exc)
            return
        finally:
            self._loaded.set()
        logger.info("exporting by OTLP to %s", self._settings.shown)
        async with open_nursery() as nursery:
            for signal in self._signals:
                nursery.start_soon(signal.run)

    async def finish(self) -> None:
        """Export what is left, within a bounded time; log a failure."""
        with trio.move_on_after(self._settings.last_within):
            await self._loaded.wait()
        async with open_nursery() as nursery:
            for signal in self._signals:
                nursery.start_soon(signal.finish)

    def on_event(self, event: Event) -> None:
        """Take in an event of the controller: the first one, too."""
        if self._workers is not None:
            now, caller = time.time_ns(), current_context()
            self._queue.add(self._workers.on_event(event, now, caller))

    def on_spans(self, calls: Sequence[CallSpan], dropped: int) -> None:
        """Take in calls that the supervisor has answered."""
        self._queue.add(span_of_call(call) for call in calls)
        self._queue.dropped += dropped

    def _load(self) -> list[Signal]:
        """Import OpenTelemetry, and make what exports."""
        from trio_supervisor.controller.telemetry.exporters import resource_of
        from trio_supervisor.controller.telemetry.metrics_signal import MetricsSignal
        from trio_supervisor.controller.telemetry.spans_signal import SpansSignal

        source, settings = self._source, self._settings
        resource = resource_of(source.application.name)
        found: list[Signal] = []
        if (interval := settings.metrics_interval) is not None:
            found.append(MetricsSignal(source, resource, settings, interval))
        if settings.sampling is not None:
            found.append(SpansSignal(resource, settings, self._queue))
        return found
