"""Test the ProcessMonitor: real processes, workers that are fakes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import trio

from trio_supervisor import ProcessMonitor, SpecError
from trio_supervisor.supervisor.monitors import process
from trio_supervisor.testing import FakeMonitoredWorker

BUSY_GRANDCHILD = """
import subprocess, sys
code = "import sys; print(flush=True); [0 for _ in iter(int, 1)]"
with subprocess.Popen([sys.executable, "-S", "-c", code]) as child:
    sys.stdin.read()
    child.kill()
"""


def usage_of(monitor: ProcessMonitor, process_id: int) -> dict[str, Any]:
    processes = monitor.status()["processes"]
    assert isinstance(processes, Mapping)
    found: dict[str, Any] = processes[str(process_id)]
    return found


async def test_usage_includes_grandchildren() -> None:
    monitor = ProcessMonitor(reads_pss=True)
    with subprocess.Popen(  # noqa: ASYNC220 - it takes 5 ms, and nothing else runs
        [sys.executable, "-S", "-c", BUSY_GRANDCHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as busy:
        assert busy.stdin is not None
        assert busy.stdout is not None
        busy.stdout.readline()
        worker = FakeMonitoredWorker(process_id=busy.pid)
        monitor.register(worker)
        await monitor.run_once()
        first = usage_of(monitor, busy.pid)
        await trio.sleep(0.3)
        await monitor.run_once()
        second = usage_of(monitor, busy.pid)
        busy.stdin.close()
    assert first["cpu_share"] is None
    assert second["cpu_share"] > 0.05
    assert second["process_count"] == 2
    assert second["name"] == "web.0"
    assert second["uss"] > 0
    assert second["rss"] > 0
    assert second["age"] == worker.uptime


async def test_worker_that_exited_or_disconnected_is_left_out() -> None:
    monitor = ProcessMonitor()
    worker = FakeMonitoredWorker()
    monitor.register(worker)
    monitor.register(FakeMonitoredWorker(name="gone.0", process_id=2**22 + 1))
    await monitor.run_once()
    assert monitor.status() == {
        "processes": {str(os.getpid()): usage_of(monitor, os.getpid())}
    }
    monitor.remove(worker)
    assert monitor.status() == {"processes": {}}
    await monitor.run_once()
    assert monitor.status() == {"processes": {}}


async def test_details_of_many_processes_are_read_in_rotation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With room for one per run, two processes take two runs; none is forgotten."""
    monkeypatch.setattr(process, "_DETAILED", 1)
    monitor = ProcessMonitor()
    async with trio.open_nursery() as nursery:
        started = [
            await nursery.start(trio.run_process, ["sleep", "1000"]) for _ in range(2)
        ]
        ids = [each.pid for each in started]
        for process_id in ids:
            monitor.register(
                FakeMonitoredWorker(name=str(process_id), process_id=process_id)
            )
        for known in (1, 2, 2):
            await monitor.run_once()
            uses = [usage_of(monitor, process_id) for process_id in ids]
            assert sum(use["voluntary_switches"] is not None for use in uses) == known
        nursery.cancel_scope.cancel()


def test_invalid_argument_is_named() -> None:
    with pytest.raises(SpecError, match="reads_pss: expected true or false, got 1"):
        ProcessMonitor(reads_pss=1)  # type: ignore[arg-type]
