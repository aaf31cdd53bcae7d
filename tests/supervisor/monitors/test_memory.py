"""The MemoryMonitor: real figures of this very process, workers that are fakes."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import trio
import trio.testing

from trio_supervisor import MemoryMonitor, Monitor, SpecError
from trio_supervisor.diagnostics.memory_usage import FullMemory
from trio_supervisor.errors import UnavailableError
from trio_supervisor.supervisor.monitors import memory
from trio_supervisor.supervisor.monitors.memory import Measure, OnLeak
from trio_supervisor.testing import FakeMonitoredWorker

GIBIBYTE = 2**30
TEBIBYTE = 2**40

Log = pytest.LogCaptureFixture
BUSY = UnavailableError("is busy")


@pytest.fixture
def large_process() -> Iterator[int]:
    """The pid of a process with 100 MiB of its own."""
    program = "data = bytearray(b'x') * 2**20 * 100; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.stdin.close()


def watching(monitor: MemoryMonitor, *workers: FakeMonitoredWorker) -> MemoryMonitor:
    """Register *workers* with *monitor*."""
    for worker in workers:
        monitor.register(worker)
    return monitor


def replace(monitor: MemoryMonitor, worker: FakeMonitoredWorker) -> FakeMonitoredWorker:
    """Put a young successor in the place of *worker*."""
    monitor.remove(worker)
    successor = FakeMonitoredWorker(
        name=worker.connection_id.rpartition(" ")[2].rstrip("'"),
        process_id=worker.process_id,
        uptime=0.5,
        connection_id=f"{worker.connection_id}'",
    )
    monitor.register(successor)
    return successor


async def test_worker_within_limit_is_kept() -> None:
    worker = FakeMonitoredWorker()
    monitor = watching(MemoryMonitor(maximum_size_limit=TEBIBYTE), worker)

    await monitor.run_once()
    await monitor.run_once()

    assert worker.reasons == []
    assert process_status(monitor)["sample_count"] == 2


def process_status(monitor: MemoryMonitor) -> dict[str, Any]:
    """What it says of this process."""
    processes = monitor.status()["processes"]
    assert isinstance(processes, dict)
    found: dict[str, Any] = processes[str(os.getpid())]
    return found


async def test_worker_over_limit_is_restarted() -> None:
    worker = FakeMonitoredWorker()
    monitor = watching(MemoryMonitor(maximum_size_limit=2**20), worker)

    await monitor.run_once()

    (reason,) = worker.reasons
    assert reason.endswith("MiB exceeds maximum_size_limit=1.0 MiB")


async def test_only_ready_workers_are_sampled() -> None:
    worker = FakeMonitoredWorker(is_ready=False)
    monitor = watching(MemoryMonitor(maximum_size_limit=2**20), worker)

    await monitor.run_once()

    assert worker.reasons == []
    assert process_status(monitor)["sample_count"] == 0
    assert process_status(monitor)["current_size"] is None


async def test_removed_worker_is_forgotten() -> None:
    worker = FakeMonitoredWorker()
    monitor = watching(MemoryMonitor(maximum_size_limit=2**20), worker)

    monitor.remove(worker)
    monitor.remove(worker)

    await monitor.run_once()
    assert worker.reasons == []
    assert monitor.status()["processes"] == {}


async def test_exited_process_is_skipped() -> None:
    ended = await trio.lowlevel.open_process(["true"])
    await ended.wait()
    worker = FakeMonitoredWorker(process_id=ended.pid)

    await watching(MemoryMonitor(maximum_size_limit=0), worker).run_once()

    assert worker.reasons == []


async def test_limit_below_baseline_restarts_once(caplog: Log) -> None:
    """Logged once; the successor is restarted only after growth by the threshold."""
    caplog.set_level(logging.WARNING)
    first = FakeMonitoredWorker()
    monitor = watching(MemoryMonitor(maximum_size_limit=2**20), first)
    await monitor.run_once()
    assert len(first.reasons) == 1
    caplog.clear()

    second = replace(monitor, first)
    for _ in range(5):
        await monitor.run_once()

    assert second.reasons == []
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "web.0: maximum_size_limit=1.0 MiB is below the "
    )


async def test_worker_growing_again_is_restarted_again() -> None:
    """It had begun well. What others free in this process is less than it grows by."""
    limit = psutil.Process().memory_info().rss + 2**24
    first = FakeMonitoredWorker(refuses=None)
    monitor = watching(MemoryMonitor(maximum_size_limit=limit), first)
    leak = [bytearray(b"x") * 2**27]
    await monitor.run_once()
    assert len(first.reasons) == 1
    del leak[:]

    second = replace(monitor, first)
    await monitor.run_once()
    await monitor.run_once()
    assert second.reasons == []
    leak.append(bytearray(b"x") * 2**27)
    await monitor.run_once()

    assert len(second.reasons) == 1


async def test_many_below_baseline_restart_once_each(caplog: Log) -> None:
    """For any time until each of them was restarted."""
    workers = [FakeMonitoredWorker(name=f"web.{index}") for index in range(5)]
    monitor = watching(MemoryMonitor(maximum_size_limit=2**20), *workers)
    restarted: list[str] = []
    for _ in range(20):
        await monitor.run_once()
        for index, worker in enumerate(workers):
            if worker.reasons:
                workers[index] = replace(monitor, worker)
                restarted.append(workers[index].name)

    assert restarted == [f"web.{index}" for index in range(5)]
    for name in restarted:
        assert (
            caplog.text.count(f"{name}: maximum_size_limit=1.0 MiB is below the ") == 1
        )


async def test_total_below_baselines_restarts_once_each(caplog: Log) -> None:
    workers = [FakeMonitoredWorker(name=f"web.{index}") for index in range(3)]
    monitor = watching(MemoryMonitor(total_size_limit=2**20), *workers)
    restarts = 0
    for _ in range(20):
        await monitor.run_once()
        for index, worker in enumerate(workers):
            if worker.reasons:
                restarts += 1
                workers[index] = replace(monitor, worker)

    assert restarts == 3
    assert (
        caplog.text.count("no worker has grown since its start, so none is restarted")
        == 1
    )


async def test_failed_restart_is_logged_and_retried(caplog: Log) -> None:
    worker = FakeMonitoredWorker(
        refuses=UnavailableError("everything is being stopped")
    )
    monitor = watching(MemoryMonitor(maximum_size_limit=2**20), worker)

    await monitor.run_once()
    await monitor.run_once()

    assert len(worker.reasons) == 2
    assert "web.0: restart failed: everything is being stopped" in caplog.text


async def test_restarts_one_worker_per_run() -> None:
    """The next worker is checked in the next run."""
    workers = [FakeMonitoredWorker(name=f"web.{index}") for index in range(3)]
    monitor = watching(MemoryMonitor(maximum_size_limit=2**20), *workers)

    await monitor.run_once()
    assert [len(worker.reasons) for worker in workers] == [1, 0, 0]

    replace(monitor, workers[0])
    await monitor.run_once()
    assert [len(worker.reasons) for worker in workers] == [1, 1, 0]


async def test_growth_over_new_maxima_is_leak() -> None:
    """This process grows by 64 MiB before each sample."""
    worker = FakeMonitoredWorker()
    monitor = watching(MemoryMonitor(increase_limit=3), worker)
    leaked = []
    for samples in range(1, 5):
        await monitor.run_once()
        assert len(worker.reasons) == (samples == 4)
        leaked.append(bytearray(b"x") * 2**26)

    (reason,) = worker.reasons
    assert reason.startswith(
        "its memory reached a new maximum 3 times (increase_limit), now "
    )


async def test_total_exceeded_restarts_largest_private(large_process: int) -> None:
    small, large = (
        FakeMonitoredWorker(),
        FakeMonitoredWorker(name="web.1", process_id=large_process),
    )
    limit = 110 * 2**20
    monitor = watching(MemoryMonitor(total_size_limit=limit), small, large)
    if psutil.Process().memory_full_info().uss > 90 * 2**20:
        pytest.skip("this process has grown larger than the large one")

    await monitor.run_once()

    assert small.reasons == []
    (reason,) = large.reasons
    assert reason.startswith("all workers together use ")
    total = monitor.status()["total_size"]
    assert isinstance(total, int)
    assert total > limit


async def test_total_is_measured_by_policy(
    large_process: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {os.getpid(): (900, 400, 500), large_process: (700, 600, None)}

    def read(process_id: int) -> FullMemory:
        rss, uss, pss = found[process_id]
        return FullMemory(rss=rss, uss=uss, pss=pss)

    monkeypatch.setattr(memory, "read_full_memory", read)
    monitor = watching(
        MemoryMonitor(total_size_limit=TEBIBYTE),
        FakeMonitoredWorker(),
        FakeMonitoredWorker(name="web.1", process_id=large_process),
    )

    await monitor.run_once()

    assert monitor.status()["total_size"] == 400 + 600 + 500
    found[large_process] = (700, 600, 650)
    await monitor.run_once()
    assert monitor.status()["total_size"] == 500 + 650


async def test_host_low_on_memory_restarts_largest_worker(caplog: Log) -> None:
    """Once; if that did not help, the log says that no restart will."""
    worker = FakeMonitoredWorker()
    monitor = watching(MemoryMonitor(free_size_minimum=2**60), worker)
    await monitor.run_once()
    (reason,) = worker.reasons
    assert reason.startswith("the host has ")
    caplog.clear()

    successor = replace(monitor, worker)
    await monitor.run_once()
    await monitor.run_once()

    assert successor.reasons == []
    (record,) = caplog.records
    assert record.getMessage().endswith(
        "no worker has grown since its start, so none is restarted"
    )


async def test_without_total_private_memory_is_not_read(large_process: int) -> None:
    """Reading it makes the kernel walk all pages."""
    worker = FakeMonitoredWorker(process_id=large_process)
    monitor = watching(MemoryMonitor(maximum_size_limit=TEBIBYTE), worker)

    await monitor.run_once()

    processes = monitor.status()["processes"]
    assert isinstance(processes, dict)
    figure = processes[str(large_process)]
    assert figure["current_size"] > 100 * 2**20
    assert figure["current_private_size"] is None


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("interval", 0, "expected more than 0 s, got 0"),
        ("interval", "10", "expected a number of seconds, got '10'"),
        ("interval", float("inf"), "expected more than 0 s, got inf"),
        ("maximum_size_limit", -1, "expected 0 or more, got -1"),
        ("maximum_size_limit", 1.5, "expected a whole number, got 1.5"),
        ("total_size_limit", "500M", "expected a whole number, got '500M'"),
        ("free_size_minimum", True, "expected a whole number, got True"),
        ("threshold_size", -5, "expected 0 or more, got -5"),
        ("growth_limit", 0.5, "expected a whole number, got 0.5"),
        ("increase_limit", 0.5, "expected a whole number, got 0.5"),
    ],
)
def test_invalid_option_is_named(field: str, value: object, problem: str) -> None:
    settings: dict[str, Any] = {field: value}

    with pytest.raises(SpecError) as caught:
        MemoryMonitor(**settings)

    assert str(caught.value) == f"{field}: {problem}"


def test_monitor_name_is_its_class() -> None:
    class HTTPWatch2(Monitor):
        pass

    assert MemoryMonitor().name == "memory_monitor"
    assert Monitor().name == "monitor"
    assert HTTPWatch2().name == "httpwatch2"
    assert Monitor().status() == {}


def sampled_worker(**options: Any) -> FakeMonitoredWorker:
    """A worker that answers a call for a memory sample."""
    answers = {"memory_sample": {"data": "holder: app.CACHE"}}
    return FakeMonitoredWorker(answers=answers, **options)


def called(worker: FakeMonitoredWorker) -> list[str]:
    """Return the operations that *worker* was to run."""
    return [do for do, _ in worker.calls]


async def leak(monitor: MemoryMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run *monitor* over a process that grows by 1 MiB per second."""

    def read(process_id: int, *, is_full: bool) -> tuple[int, None]:
        return 2**30 + round(trio.current_time() * 2**20), None

    monkeypatch.setattr(memory, "read_memory", read)
    for _ in range(60):
        await monitor.run_once()
        await trio.sleep(1)


@pytest.mark.parametrize(
    ("on_leak", "calls", "restarts"),
    [("report", 0, 0), ("sample", 1, 0), ("restart", 1, 1)],
)
async def test_leak_is_reported_sampled_or_restarted(
    on_leak: OnLeak,
    calls: int,
    restarts: int,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Log,
) -> None:
    worker = sampled_worker()
    monitor = MemoryMonitor(leak_window=48, on_leak=on_leak)
    monitor.register(worker)

    with trio.move_on_after(49.5):
        await leak(monitor, monkeypatch)

    assert called(worker) == ["memory_sample"] * calls
    assert len(worker.reasons) == restarts
    assert caplog.text.count("per hour for 48 s (leak_window)") == 1
    assert ("holder: app.CACHE" in caplog.text) == bool(calls)


async def test_failed_sample_does_not_prevent_restart(
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Log,
) -> None:
    worker = sampled_worker(refuses=BUSY, fails=BUSY)
    monitor = MemoryMonitor(leak_window=48)
    monitor.register(worker)

    with trio.move_on_after(51.5):
        await leak(monitor, monkeypatch)

    assert called(worker) == ["memory_sample"]
    assert len(worker.reasons) == 2  # tried again with the next block
    assert "no memory sample" in caplog.text


def reading(
    monkeypatch: pytest.MonkeyPatch, sizes: list[tuple[int, int | None]]
) -> None:
    """Make the monitor read *sizes*, rss and uss, one in each run."""

    def read(process_id: int, *, is_full: bool) -> tuple[int, int | None]:
        return sizes.pop(0)

    monkeypatch.setattr(memory, "read_memory", read)


@pytest.mark.parametrize(("measure", "restarts"), [("rss", 1), ("uss", 0)])
async def test_limit_applies_to_the_chosen_measure(
    measure: Measure, restarts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = FakeMonitoredWorker()
    limit = 100
    monitor = MemoryMonitor(maximum_size_limit=limit, measure=measure)
    watching(monitor, worker)
    reading(monkeypatch, [(150, 90)])
    await monitor.run_once()
    assert len(worker.reasons) == restarts


async def test_private_memory_over_the_limit_causes_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = FakeMonitoredWorker()
    monitor = watching(MemoryMonitor(maximum_size_limit=100, measure="uss"), worker)
    reading(monkeypatch, [(150, 101)])
    await monitor.run_once()
    assert len(worker.reasons) == 1


async def test_only_samples_in_a_row_cause_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = FakeMonitoredWorker()
    monitor = watching(MemoryMonitor(maximum_size_limit=100, samples=3), worker)
    sizes = [150, 150, 90, 150, 150, 150]
    reading(monkeypatch, [(size, None) for size in sizes])
    restarts = []
    for _ in sizes:
        await monitor.run_once()
        restarts.append(len(worker.reasons))
    assert restarts == [0, 0, 0, 0, 0, 1]


async def test_growth_since_the_start_causes_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However much it needs right after its start."""
    worker = FakeMonitoredWorker()
    monitor = watching(MemoryMonitor(growth_limit=100, samples=2), worker)
    sizes = [900, 1000, 1101, 1100, 1101, 1101]
    reading(monkeypatch, [(size, None) for size in sizes])
    restarts = []
    for _ in sizes:
        await monitor.run_once()
        restarts.append(len(worker.reasons))
    assert restarts == [0, 0, 0, 0, 0, 1]
    processes: Any = monitor.status()["processes"]
    [found] = processes.values()
    assert (found["baseline_size"], found["growth_limit"]) == (1000, 100)


async def test_cool_down_separates_restarts(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = [FakeMonitoredWorker(name=f"web.{index}") for index in range(2)]
    monitor = MemoryMonitor(maximum_size_limit=100, cool_down=30)
    watching(monitor, *workers)
    monkeypatch.setattr(memory, "read_memory", lambda _pid, is_full: (150, None))
    restarts = []
    for _ in range(7):
        await monitor.run_once()
        restarts.append(sum(len(worker.reasons) for worker in workers))
        await trio.sleep(10)
    assert restarts == [1, 1, 1, 2, 2, 2, 3]


async def test_failed_restart_starts_no_cool_down() -> None:
    worker = FakeMonitoredWorker(refuses=UnavailableError("is busy"))
    monitor = MemoryMonitor(maximum_size_limit=1, cool_down=30)
    watching(monitor, worker)
    await monitor.run_once()
    await monitor.run_once()
    assert len(worker.reasons) == 2


async def test_evidence_is_logged_before_a_restart(
    monkeypatch: pytest.MonkeyPatch, caplog: Log
) -> None:
    worker = sampled_worker()
    monitor = MemoryMonitor(maximum_size_limit=100, evidence=True)
    monitor.register(worker)
    reading(monkeypatch, [(150, None)])
    await monitor.run_once()
    assert called(worker) == ["memory_sample"]
    first, second = (record.getMessage() for record in caplog.records)
    assert "holder: app.CACHE" in first
    assert second.endswith("; restarting")


async def test_evidence_of_a_leak_is_taken_once(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = sampled_worker()
    monitor = MemoryMonitor(leak_window=48, evidence=True)
    monitor.register(worker)
    with trio.move_on_after(49.5):
        await leak(monitor, monkeypatch)
    assert called(worker) == ["memory_sample"]
    assert len(worker.reasons) == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"cool_down": -1}, "cool_down: expected 0 or more, got -1"),
        ({"evidence": 1}, "evidence: expected True or False, got 1"),
        ({"measure": "vms"}, "measure: expected one of 'rss', 'uss', got 'vms'"),
        ({"samples": 0}, "samples: expected 1 or more, got 0"),
        ({"samples": 1.5}, "samples: expected a whole number, got 1.5"),
        ({"leak_window": 0}, "leak_window: expected more than 0, got 0"),
        ({"leak_window": True}, "leak_window: expected a number, got True"),
        ({"leak_rate": "4"}, "leak_rate: expected a number, got '4'"),
        ({"on_leak": "kill"}, "on_leak: expected one of 'report', 'sample', 'restart'"),
    ],
)
def test_invalid_leak_setting_is_named(arguments: Any, problem: str) -> None:
    with pytest.raises(SpecError, match=re.escape(problem)):
        MemoryMonitor(**arguments)
