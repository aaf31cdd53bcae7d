"""The DescriptorMonitor: descriptors of this process, workers that are fakes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from trio_supervisor import DescriptorMonitor, SpecError
from trio_supervisor.errors import UnavailableError
from trio_supervisor.supervisor.monitors.descriptors import count_descriptors
from trio_supervisor.testing import FakeMonitoredWorker

HERE = count_descriptors(os.getpid())
NOW = 0 if HERE is None else HERE[0]


def figures(monitor: DescriptorMonitor) -> dict[str, Any]:
    processes = monitor.status()["processes"]
    assert isinstance(processes, Mapping)
    found: dict[str, Any] = processes[str(os.getpid())]
    return found


async def test_a_worker_that_leaks_descriptors_is_restarted() -> None:
    monitor = DescriptorMonitor(maximum=NOW + 50, samples=2)
    worker = FakeMonitoredWorker()
    monitor.register(worker)
    await monitor.run_once()
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(open(os.devnull))  # noqa: ASYNC230
        await monitor.run_once()
        assert worker.reasons == []
        await monitor.run_once()
    [reason] = worker.reasons
    assert reason.endswith(f" descriptors open (maximum={NOW + 50})")
    assert figures(monitor)["most"] >= NOW + 100
    monitor.remove(worker)
    assert monitor.status() == {"processes": {}}


async def test_only_samples_in_a_row_count() -> None:
    monitor = DescriptorMonitor(maximum=NOW + 50, samples=2)
    worker = FakeMonitoredWorker()
    monitor.register(worker)
    await monitor.run_once()
    for _ in range(2):
        with ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(open(os.devnull))  # noqa: ASYNC230
            await monitor.run_once()
        await monitor.run_once()
    assert worker.reasons == []


async def test_a_restart_that_fails_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    monitor = DescriptorMonitor(maximum=NOW + 20, samples=1)
    worker = FakeMonitoredWorker(refuses=UnavailableError("no"))
    monitor.register(worker)
    await monitor.run_once()
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(open(os.devnull))  # noqa: ASYNC230
        await monitor.run_once()
        await monitor.run_once()
    assert len(worker.reasons) == 2
    assert "restart failed: no" in caplog.text


@pytest.mark.parametrize("on_limit", ["restart", "report"])
async def test_one_that_has_so_many_from_its_start_is_reported_once(
    caplog: pytest.LogCaptureFixture, on_limit: Any
) -> None:
    monitor = DescriptorMonitor(maximum=1, samples=1, on_limit=on_limit)
    worker = FakeMonitoredWorker()
    monitor.register(worker)
    for _ in range(3):
        await monitor.run_once()
    assert worker.reasons == []
    [record] = caplog.records
    assert "it had as many from its start" in record.getMessage()


async def test_share_of_the_limit() -> None:
    monitor = DescriptorMonitor(share=1e-6, samples=1, on_limit="report")
    monitor.register(FakeMonitoredWorker())
    await monitor.run_once()
    limit = figures(monitor)["limit"]
    assert limit is None or figures(monitor)["open"] <= limit


async def test_one_that_exited_or_is_not_ready_is_left_out() -> None:
    monitor = DescriptorMonitor(maximum=1, samples=1)
    monitor.register(FakeMonitoredWorker(name="gone.0", process_id=2**22 + 1))
    unready = FakeMonitoredWorker(name="slow.0", is_ready=False)
    monitor.register(unready)
    await monitor.run_once()
    assert figures(monitor)["open"] is None
    assert unready.reasons == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"share": 0}, "share: expected more than 0, up to 1, got 0"),
        ({"share": "x"}, "share: expected a number, got 'x'"),
        ({"maximum": 0}, "maximum: expected 1 or more, got 0"),
        ({"samples": 1.5}, "samples: expected a whole number, got 1.5"),
        ({"on_limit": "die"}, "on_limit: expected one of 'report', 'restart'"),
    ],
)
def test_invalid_argument_is_named(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        DescriptorMonitor(**arguments)
