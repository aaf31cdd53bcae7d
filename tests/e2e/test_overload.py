"""Test healthy workers on an overloaded machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.kits.serving import PATIENCE, open_serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

SERVICE = """
import trio
from trio_supervisor import Application, Service, Worker

async def work(worker: Worker) -> None:
    await worker.ready()
    await trio.sleep_forever()

application = Application(
    services=[
        Service("web", work, count=COUNT, health_check_timeout=TIMEOUT, stop_timeout=1)
    ]
)
"""


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Run busy processes in this session, by which the kernel groups them."""
    loops = [
        subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(count)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
        for loop in loops:
            loop.wait()


@pytest.mark.parametrize(
    ("count", "loops", "timeout", "duration"),
    [
        pytest.param(20, 30, 2.0, 5.0, id="small"),
        pytest.param(100, 150, 6.0, 45.0, id="large", marks=pytest.mark.alone),
    ],
)
def test_overload_stops_no_healthy_worker(
    count: int, loops: int, timeout: float, duration: float
) -> None:
    """Status answers during that time. A worker stopped by SIGSTOP is replaced."""
    source = SERVICE.replace("COUNT", str(count)).replace("TIMEOUT", str(timeout))
    with open_serving(source) as serving:
        before = serving.pids()
        supervisor = serving.call("workers")["supervisor"]["process_id"]
        took = []
        with busy_loops(loops):
            end = time.monotonic() + duration
            while (began := time.monotonic()) < end:
                serving.call("workers")
                took.append(time.monotonic() - began)
                time.sleep(0.25)
            assert serving.pids() == before
            os.kill(before["web.3"], signal.SIGSTOP)
            serving.wait_event(event="stopping", name="web.3", cause="unhealthy")
        took.sort()
        # This process has to wait for a processor too.
        assert took[len(took) // 2] < 1, took
        assert took[-1] < 10, took
        serving.wait_worker("web.3", state="ready", restarts=1)
        assert serving.pids() == {**before, "web.3": serving.pids()["web.3"]}
        found = serving.call("workers")["supervisor"]["process_id"]
        assert found == supervisor


def test_start_under_pressure_starts_all_workers() -> None:
    """They start a few at a time while the others wait; none is stopped."""
    source = SERVICE.replace("COUNT", "24").replace("TIMEOUT", "30")
    with busy_loops(6), open_serving(source, is_ready=False) as serving:
        event = serving.wait_event(event="all_ready")
        assert event["workers"] == 24
        assert event["seconds"] < PATIENCE
        assert not serving.select(event="stopping")
