"""Test that status is right when supervisors are killed during reloads."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from tests.kits.serving import PATIENCE, Serving, open_serving, wait_gone
from trio_supervisor.controller.supervisor_link import CHECK_INTERVAL

SERVICE = """
from trio_supervisor import Application, Service, Worker

async def a(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()

async def failing(worker: Worker) -> None:
    with open("fifo") as fifo:
        fifo.read()  # until the test has done its part
    raise SystemExit(1)

application = Application(services=[
    Service("a", a, health_check_timeout=None),
    Service("b", a, count=2, depends_on={"a": "ready"}),
])
"""


def rows(serving: Serving) -> list[tuple[str, int]]:
    """Return names and generations of the workers."""
    report = serving.call("workers")
    return [(row["name"], row["generation"]) for row in report["workers"]]


def test_status_after_killed_supervisors_in_failing_reloads() -> None:
    with open_serving(SERVICE) as serving:
        truth = [("a.0", 1), ("b.0", 1), ("b.1", 1)]
        before = serving.pids()
        fifo = serving.directory / "fifo"
        os.mkfifo(fifo)
        serving.edit(SERVICE.replace('Service("a", a,', 'Service("a", failing,'))
        for _ in range(2):
            since = serving.mark()
            with ThreadPoolExecutor(1) as pool:
                pool.submit(serving.cli, "reload")
                with open(fifo, "w"):  # opened by the new worker, so it runs
                    supervisor = serving.call("status")["supervisor"]["process_id"]
                    os.kill(supervisor, signal.SIGKILL)
                    wait_gone([supervisor])
                    serving.wait_event(since=since, event="supervisor_connected")
                    assert set(rows(serving)) > set(truth)
                    serving.when_ready()  # workers of the new generation do not count
                serving.wait_event(since=since, event="reload_failed")
            began = time.monotonic()
            serving.until(lambda: rows(serving) == truth, "the truth")
            assert time.monotonic() - began < CHECK_INTERVAL, "it had to be mended"
            answer = serving.call(
                "forward", name="b.0", operation={"do": "thread_dump"}
            )
            assert answer["data"]
        assert serving.pids() == before
        assert not serving.select(event="supervisor_picture_differed")


def test_status_reports_suspended_controller() -> None:
    with open_serving(SERVICE) as serving:
        report = serving.when_ready()
        assert report["controller"]["silent_for"] is None
        os.kill(report["controller"]["process_id"], signal.SIGSTOP)
        try:
            deadline = time.monotonic() + PATIENCE
            while (told := serving.call("status")["controller"])["state"] == "":
                assert time.monotonic() < deadline
            assert told["silent_for"] >= 1
            shown = serving.cli("status").stdout
            assert "controller is stopped (SIGSTOP); the status below is " in shown
        finally:
            os.kill(report["controller"]["process_id"], signal.SIGCONT)
        since = serving.mark()
        assert serving.cli("restart", "a").returncode == 0
        serving.wait_event(since=since, event="ready", name="a.0")
        assert serving.call("status")["controller"]["state"] == ""


def test_status_after_supervisor_was_suspended() -> None:
    with open_serving(SERVICE) as serving:
        supervisor = serving.when_ready()["supervisor"]["process_id"]
        victim = serving.pids()["b.1"]
        since = serving.mark()
        os.kill(supervisor, signal.SIGSTOP)
        os.kill(victim, signal.SIGKILL)
        serving.wait_event(since=since, event="ready", name="b.1")
        os.kill(supervisor, signal.SIGCONT)
        row = serving.wait_worker("b.1", incarnation=2, connected=True)
        assert row["process_id"] != victim
