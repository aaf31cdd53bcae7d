"""Test monitors in a real supervisor with workers that leak memory."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.kits.serving import Serving, open_serving

LEAKING = """
from trio_supervisor import Application, MemoryMonitor, Monitor, Service, Worker
import trio

async def leak(worker: Worker) -> None:
    data = []
    await worker.ready()
    try:
        while worker.incarnation == 1:
            data.append(bytearray(b"x") * 2**22)
            await trio.sleep(0.01)
        await trio.sleep_forever()
    finally:
        with open("clean-up", "w") as file:
            file.write(worker.name)

async def keep(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()

class Broken(Monitor):
    def register(self, worker):
        raise LookupError("no register")

    async def run_once(self):
        raise LookupError("no run")

application = Application(
    services=[
        Service("leak", leak, intensity=0, start_method="exec"),
        Service("keep", keep, intensity=0, start_method="exec"),
    ],
    monitors=[
        Broken(interval=0.05),
        MemoryMonitor(interval=0.05, maximum_size_limit=300 * 2**20),
    ],
)
"""


def memory_of(serving: Serving) -> dict[str, Any]:
    """Return the status of the MemoryMonitor."""
    status = json.loads(serving.cli("status", "--json").stdout)
    found: dict[str, Any] = status["monitors"]["memory_monitor"]
    return found


def sample_count(serving: Serving, name: str) -> int:
    """Return how often the process of the worker was sampled."""
    for process in memory_of(serving)["processes"].values():
        if process["name"] == name:
            count: int = process["sample_count"]
            return count
    return 0


def test_memory_monitor_restarts_only_leaking_worker() -> None:
    with open_serving(LEAKING, is_ready=False) as serving:
        stopping = serving.wait_event(event="stopping", name="leak.0")
        serving.wait_events(2, event="ready", name="leak.0")

        assert stopping["cause"] == "monitor"
        assert "MiB exceeds maximum_size_limit=300.0 MiB" in stopping["reason"]
        exited = serving.wait_event(event="exited", name="leak.0")
        assert (exited["returncode"], exited["is_planned"]) == (0, True)
        assert (serving.directory / "clean-up").read_text() == "leak.0"
        report = serving.when_ready()
        restarts = {w["name"]: w["restarts"] for w in report["workers"]}
        assert restarts == {"leak.0": 1, "keep.0": 0}
        # The replacement is watched too, and is within its limit.
        while sample_count(serving, "leak.0") < 5:
            pass
        assert serving.worker("leak.0")["restarts"] == 1


def test_failing_monitor_is_shown_in_status() -> None:
    with open_serving(LEAKING, is_ready=False) as serving:
        serving.wait_line("monitor broken: run_once() failed")
        serving.wait_events(2, event="ready", name="leak.0")  # the other monitor works

        text = serving.cli("status").stdout

        # The last failure: run_once() is retried with backoff, register() is not.
        assert re.search(
            r"^monitor broken: (run_once|register)\b.*: LookupError", text, re.M
        )
        assert serving.call("workers")["supervisor"]["incarnation"] == 1
        assert not serving.select(event="supervisor_lost")


def test_memory_limit_below_baseline_restarts_once() -> None:
    """It is logged and not repeated; a restart by the verb does not start it again."""
    source = LEAKING.replace("300 * 2**20", "2**20").replace(
        "interval=0.05", "interval=0.2"
    )
    source = source.replace("worker.incarnation == 1", "False")
    with open_serving(source, is_ready=False) as serving:
        for name in ("leak.0", "keep.0"):
            serving.wait_line(f"{name}: maximum_size_limit=1.0 MiB is below the ")
        counts = {name: sample_count(serving, name) for name in ("leak.0", "keep.0")}
        for name, count in counts.items():
            while sample_count(serving, name) < count + 5:
                pass

        report = serving.when_ready()
        assert [w["restarts"] for w in report["workers"]] == [1, 1]
        for name in counts:
            said = [
                x for x in serving.lines if f"{name}: maximum_size_limit=1.0 MiB" in x
            ]
            assert len(said) == 1


def test_total_limit_restarts_largest_worker() -> None:
    source = """
from trio_supervisor import Application, MemoryMonitor, Service, SyncWorker

def hold(size: int, worker: SyncWorker) -> None:
    data = bytearray(b"x") * (size * 2**20)
    worker.ready()
    worker.stopping.wait()

def small(worker: SyncWorker) -> None:
    hold(1, worker)

def large(worker: SyncWorker) -> None:
    hold(200 if worker.incarnation == 1 else 1, worker)

application = Application(
    services=[
        Service("first", small, backend="sync"),
        Service("large", large, backend="sync"),
        Service("last", small, backend="sync"),
    ],
    monitors=[MemoryMonitor(interval=0.05, total_size_limit=190 * 2**20)],
)
"""
    with open_serving(source, is_ready=False) as serving:
        serving.wait_events(2, event="ready", name="large.0")
        serving.when_ready()
        stopping = serving.wait_event(event="stopping", name="large.0")
        assert "all workers together use" in stopping["reason"]
        while sample_count(serving, "large.0") < 5:
            pass

        report = serving.when_ready()
        assert [w["restarts"] for w in report["workers"]] == [0, 1, 0]
        assert memory_of(serving)["total_size"] < 190 * 2**20
