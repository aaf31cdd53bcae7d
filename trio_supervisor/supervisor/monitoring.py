"""Run the monitors; log their exceptions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import trio
from attrs import define, field

from trio_supervisor.application import MonitorLike
from trio_supervisor.supervisor.monitors.base import MonitoredWorker

logger = logging.getLogger(__name__)


def monitor_name(monitor: MonitorLike) -> str:
    """Return the key of a monitor's status."""
    name = getattr(monitor, "name", None)
    return name if isinstance(name, str) else type(monitor).__name__.lower()


@define(eq=False)
class Monitoring:
    """All monitors of one supervisor."""

    monitors: Sequence[MonitorLike]
    _problems: dict[int, str] = field(factory=dict, init=False)
    """The last failure of the monitor at that index, until it succeeds again."""

    def register(self, worker: MonitoredWorker) -> None:
        """Call `Monitor.register` of every monitor."""
        for index, monitor in enumerate(self.monitors):
            try:
                monitor.register(worker)
            except Exception as exc:
                self._report(index, f"register({worker.name})", exc)

    def remove(self, worker: MonitoredWorker) -> None:
        """Call `Monitor.remove` of every monitor."""
        for index, monitor in enumerate(self.monitors):
            try:
                monitor.remove(worker)
            except Exception as exc:
                self._report(index, f"remove({worker.name})", exc)

    def statuses(self) -> dict[str, Mapping[str, object]]:
        """Return the status of each monitor by name, with ``problem`` if it failed."""
        found: dict[str, Mapping[str, object]] = {}
        for index, monitor in enumerate(self.monitors):
            name = monitor_name(monitor)
            if name in found:
                name = f"{name}_{index}"
            try:
                found[name] = dict(monitor.status())
            except Exception as exc:
                self._report(index, "status()", exc)
                found[name] = {}
            if index in self._problems:
                found[name] = {**found[name], "problem": self._problems[index]}
        return found

    async def run(self) -> None:
        """Run all monitors at their intervals until cancelled."""
        async with trio.open_nursery() as nursery:
            for index, monitor in enumerate(self.monitors):
                nursery.start_soon(self._run_one, index, monitor)

    async def _run_one(self, index: int, monitor: MonitorLike) -> None:
        while True:
            await trio.sleep(monitor.interval)
            try:
                await monitor.run_once()
            except Exception as exc:
                self._report(index, "run_once()", exc)
            else:
                self._problems.pop(index, None)

    def _report(self, index: int, what: str, exc: Exception) -> None:
        name = monitor_name(self.monitors[index])
        problem = f"{what}: {type(exc).__name__}: {exc}"
        if self._problems.get(index) != problem:  # logged once, not at every interval
            logger.error(
                "monitor %s: %s failed; other monitors continue",
                name,
                what,
                exc_info=exc,
            )
        self._problems[index] = problem
