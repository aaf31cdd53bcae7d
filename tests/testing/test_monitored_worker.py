"""A worker for tests of monitors."""

from __future__ import annotations

import pytest
import trio

from trio_supervisor import Monitor
from trio_supervisor.errors import UnavailableError
from trio_supervisor.supervisor.monitors.base import MonitoredWorker
from trio_supervisor.testing import (
    FakeMonitoredWorker,
    in_virtual_time,
    run_monitor,
)


class QueueMonitor(Monitor):
    """Restarts workers whose queue is long."""

    def __init__(self) -> None:
        super().__init__(interval=30)
        self.workers: list[MonitoredWorker] = []
        self.runs: list[float] = []

    def register(self, worker: MonitoredWorker) -> None:
        self.workers.append(worker)

    async def run_once(self) -> None:
        self.runs.append(trio.current_time())
        for worker in self.workers:
            if (await worker.call("queue", limit=5)).get("length", 0) > 10:
                await worker.restart("its queue is long")


@in_virtual_time
async def test_monitor_is_tested_in_one_line() -> None:
    long, short = (
        FakeMonitoredWorker(name=name, answers={"queue": {"length": length}})
        for name, length in (("web.0", 11), ("web.1", 3))
    )
    await run_monitor(QueueMonitor(), long, short)
    assert (long.reasons, short.reasons) == (["its queue is long"], [])
    assert long.calls == [("queue", {"limit": 5})]
    assert long.name == f"pid-{long.process_id}"


@in_virtual_time
async def test_runs_are_at_the_interval() -> None:
    monitor = QueueMonitor()
    await run_monitor(monitor, FakeMonitoredWorker(), times=3)
    assert monitor.runs == [0, 30, 60]


@in_virtual_time
async def test_restart_can_be_refused() -> None:
    worker = FakeMonitoredWorker(
        answers={"queue": {"length": 11}}, refuses=UnavailableError("shutting down")
    )
    with pytest.raises(UnavailableError, match="shutting down"):
        await run_monitor(QueueMonitor(), worker)


def test_it_has_all_that_a_monitor_sees() -> None:
    worker: MonitoredWorker = FakeMonitoredWorker(name="web.3", uptime=None)
    names = {name for name in vars(MonitoredWorker) if not name.startswith("_")}
    assert all(hasattr(worker, name) for name in names)
    assert worker.connection_id == "connection of web.3"
