"""Run the monitors; log their exceptions, and which one blocks the event loop."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.application import MonitorLike
from trio_supervisor.supervisor.monitors.base import MonitoredWorker
from trio_supervisor.supervisor.timed_steps import time_steps

logger = logging.getLogger(__name__)

# Longest time between two runs of a monitor that keeps failing [s].
_LONGEST_RETRY: Final = 60.0
# A step of this length makes calls of clients wait noticeably [s].
_BLOCKED: Final = 0.1


def retry_interval(interval: float, failures: int) -> float:
    """Return the time until a monitor runs again, after *failures* in a row [s].

    It doubles with each failure after the first, up to a minute.
    """
    longest = max(interval, _LONGEST_RETRY)
    # The exponent is bounded so that it does not overflow.
    return min(longest, interval * 2.0 ** min(max(0, failures - 1), 64))


def monitor_name(monitor: MonitorLike) -> str:
    """Return the key of a monitor's status."""
    name = getattr(monitor, "name", None)
    return name if isinstance(name, str) else type(monitor).__name__.lower()


async def _run(monitor: MonitorLike) -> None:
    await monitor.run_once()


@define(eq=False)
class Monitoring:
    """All monitors of one supervisor."""

    monitors: Sequence[MonitorLike]
    _problems: dict[int, str] = field(factory=dict, init=False)
    """The last failure of the monitor at that index, until it succeeds again."""
    _failures: dict[int, int] = field(factory=dict, init=False)
    """Failed runs in a row, by index."""
    _blocked: dict[int, float] = field(factory=dict, init=False)
    """The longest time for which a run blocked the event loop, by index [s]."""

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
            if failures := self._failures.get(index):
                found[name] = {**found[name], "failures": failures}
            if blocked := self._blocked.get(index):
                found[name] = {**found[name], "blocked": round(blocked, 3)}
        return found

    async def run(self) -> None:
        """Run all monitors at their intervals until cancelled."""
        async with trio.open_nursery() as nursery:
            for index, monitor in enumerate(self.monitors):
                nursery.start_soon(self._run_one, index, monitor)

    async def _run_one(self, index: int, monitor: MonitorLike) -> None:
        while True:
            failures = self._failures.get(index, 0)
            await trio.sleep(retry_interval(monitor.interval, failures))
            try:
                await time_steps(_run(monitor), partial(self._note_step, index))
            except Exception as exc:
                self._failures[index] = failures + 1
                self._report(index, "run_once()", exc)
            else:
                self._failures.pop(index, None)
                self._problems.pop(index, None)

    def _note_step(self, index: int, seconds: float) -> None:
        longest = self._blocked.get(index, 0.0)
        if seconds < _BLOCKED or seconds <= longest:
            return
        self._blocked[index] = seconds
        if seconds > 2 * longest:  # not at every run
            logger.warning(
                "monitor %s: run_once() blocked the event loop for %.2f s; run "
                "blocking code in a thread (trio.to_thread.run_sync)",
                monitor_name(self.monitors[index]),
                seconds,
            )

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
