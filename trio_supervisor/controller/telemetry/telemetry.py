"""Export by OpenTelemetry for as long as a controller runs."""

from __future__ import annotations

import logging
from typing import Protocol

import trio
from attrs import define, field

from trio_supervisor.controller.metrics import MetricsSource
from trio_supervisor.controller.telemetry.settings import TelemetrySettings
from trio_supervisor.process.threads import run_in_thread
from trio_supervisor.tasks import open_nursery

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

    def _load(self) -> list[Signal]:
        """Import OpenTelemetry, and make what exports."""
        from trio_supervisor.controller.telemetry.metrics_signal import MetricsSignal

        interval = self._settings.metrics_interval
        if interval is None:
            return []
        return [MetricsSignal(self._source, self._settings, interval)]
