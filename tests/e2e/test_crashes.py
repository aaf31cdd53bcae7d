"""Test that a crash affects no other process, by killing real processes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kits.serving import Serving, is_alive, open_serving

ROUNDS = 10


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """Serve the application that all tests of this module use."""
    with open_serving() as serving:
        yield serving


def identities(report: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
    """Return what stays the same for each worker while its process lives."""
    return {
        worker["name"]: (
            worker["process_id"],
            worker["incarnation"],
            worker["restarts"],
        )
        for worker in report["workers"]
    }


def test_serve_four_workers_are_ready_and_connected(serving: Serving) -> None:
    report = serving.when_ready()

    names = [worker["name"] for worker in report["workers"]]
    assert names == ["worker.0", "worker.1", "worker.2", "worker.3"]
    for worker in report["workers"]:
        assert (worker["service"], worker["state"]) == ("worker", "ready")
        assert worker["connected"]
        assert worker["connection_id"]
        assert (worker["incarnation"], worker["restarts"]) == (1, 0)
        assert 0 < worker["uptime"] < 60
        assert is_alive(worker["process_id"])
    assert report["supervisor"]["incarnation"] == 1
    assert report["controller"]["process_id"] == serving.process.pid


def test_killed_worker_is_replaced_and_others_stay(serving: Serving) -> None:
    before = identities(serving.when_ready())
    mark = serving.mark()

    killed = serving.kill("worker.2")

    exited = serving.wait_event(since=mark, event="exited", name="worker.2")
    assert (exited["process_id"], exited["returncode"]) == (killed, -9)
    assert exited["message"] == (
        f"killed by SIGKILL (sent from outside, pid {killed}); restarting"
    )
    assert exited["level"] == "warning"
    ready = serving.wait_event(since=mark, event="ready", name="worker.2")
    after = identities(serving.when_ready())
    _, incarnation, restarts = before.pop("worker.2")
    assert after.pop("worker.2") == (ready["process_id"], incarnation + 1, restarts + 1)
    assert ready["process_id"] != killed
    assert after == before


def test_killed_supervisor_keeps_workers(serving: Serving) -> None:
    """The supervisor is killed ten times; each time all four workers connect again."""
    before = serving.when_ready()
    seconds = []
    for round_ in range(1, ROUNDS + 1):
        mark = serving.mark()

        killed = serving.kill("supervisor")

        began = time.monotonic()
        serving.wait_event(since=mark, event="supervisor_lost")
        serving.wait_event(since=mark, event="supervisor_connected", is_back=True)
        after = serving.when_ready()
        seconds.append(time.monotonic() - began)
        assert identities(after) == identities(before)
        assert after["controller"] == before["controller"]
        assert after["supervisor"]["process_id"] != killed
        incarnation = before["supervisor"]["incarnation"] + round_
        assert after["supervisor"]["incarnation"] == incarnation
        assert all(worker["connected"] for worker in after["workers"])
    assert not serving.select(event="stopping")
    # The documented time; only for most kills, because the machine may be busy.
    assert statistics.median(seconds) < 1


def test_killed_worker_and_supervisor_are_both_replaced(serving: Serving) -> None:
    """Both are killed at the same time, ten times in a row."""
    for round_ in range(ROUNDS):
        before = serving.when_ready()
        name = f"worker.{round_ % 4}"
        mark = serving.mark()

        serving.kill(name)
        serving.kill("supervisor")

        serving.wait_event(since=mark, event="ready", name=name)
        serving.wait_event(since=mark, event="supervisor_connected", is_back=True)
        after = serving.when_ready()
        was, is_ = identities(before), identities(after)
        assert is_[name][0] != was[name][0]
        assert is_[name][2] == was.pop(name)[2] + 1
        del is_[name]
        assert is_ == was
        incarnation = before["supervisor"]["incarnation"] + 1
        assert after["supervisor"]["incarnation"] == incarnation
