"""Monitors that fail, and how the supervisor reacts (virtual time)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import pytest
import trio

from trio_supervisor import Monitor
from trio_supervisor.supervisor.monitoring import Monitoring, retry_interval
from trio_supervisor.testing import FakeMonitoredWorker, in_virtual_time

Log = pytest.LogCaptureFixture


class Counting(Monitor):
    """Counts its runs, and fails in those that it is told to."""

    def __init__(self, interval: float, *, fails_in: range = range(0)) -> None:
        super().__init__(interval=interval)
        self.fails_in = fails_in
        self.runs: list[float] = []
        self.names: list[str] = []

    def register(self, worker: object) -> None:
        assert isinstance(worker, FakeMonitoredWorker)
        self.names.append(worker.name)

    def remove(self, worker: object) -> None:
        assert isinstance(worker, FakeMonitoredWorker)
        self.names.remove(worker.name)

    async def run_once(self) -> None:
        self.runs.append(trio.current_time())
        if len(self.runs) in self.fails_in:
            raise LookupError("lost it")

    def status(self) -> Mapping[str, object]:
        return {"runs": len(self.runs)}


class Hostile(Monitor):
    """Fails in everything."""

    def register(self, worker: object) -> None:
        raise LookupError("no register")

    def remove(self, worker: object) -> None:
        raise LookupError("no remove")

    async def run_once(self) -> None:
        raise LookupError("no run")

    def status(self) -> Mapping[str, object]:
        raise LookupError("no status")


async def run_for(monitoring: Monitoring, seconds: float) -> None:
    """Run it for so long."""
    with trio.move_on_after(seconds):
        await monitoring.run()


@in_virtual_time
async def test_monitors_run_at_own_intervals() -> None:
    often, seldom = Counting(2), Counting(5)

    await run_for(Monitoring([often, seldom]), 11)

    assert often.runs == [2, 4, 6, 8, 10]
    assert seldom.runs == [5, 10]


@in_virtual_time
async def test_failing_monitor_continues_alone() -> None:
    failing, well = Counting(2, fails_in=range(1, 100)), Counting(2)

    await run_for(Monitoring([failing, Hostile(interval=1), well]), 7)

    assert failing.runs == [2, 4]
    assert well.runs == [2, 4, 6]


@in_virtual_time
async def test_failure_is_problem_until_next_success() -> None:
    failing = Counting(2, fails_in=range(2, 4))
    monitoring = Monitoring([failing])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(monitoring.run)
        await trio.sleep(3)
        assert monitoring.statuses() == {"counting": {"runs": 1}}
        await trio.sleep(2)
        assert monitoring.statuses() == {
            "counting": {
                "runs": 2,
                "problem": "run_once(): LookupError: lost it",
                "failures": 1,
            }
        }
        await trio.sleep(6)
        assert monitoring.statuses() == {"counting": {"runs": 4}}
        nursery.cancel_scope.cancel()


def test_repeated_failure_is_logged_once(caplog: Log) -> None:
    @in_virtual_time
    async def run() -> None:
        await run_for(Monitoring([Counting(1, fails_in=range(1, 100))]), 10)

    run()

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        "monitor counting: run_once() failed; other monitors continue"
    )
    assert record.exc_info is not None


def test_failing_monitor_keeps_worker_updates() -> None:
    counting = Counting(1)
    monitoring = Monitoring([Hostile(), counting])
    worker = FakeMonitoredWorker(name="web.7")

    monitoring.register(worker)
    assert counting.names == ["web.7"]
    status = monitoring.statuses()["hostile"]
    assert status == {"problem": "status(): LookupError: no status"}
    monitoring.remove(worker)
    assert counting.names == []


def test_same_class_monitors_have_distinct_names() -> None:
    monitoring = Monitoring([Counting(1), Counting(2), Hostile()])

    assert list(monitoring.statuses()) == ["counting", "counting_1", "hostile"]


@in_virtual_time
async def test_failing_monitor_is_retried_with_backoff_and_siblings_are_not() -> None:
    failing, sibling = Counting(10, fails_in=range(1, 5)), Counting(10)
    monitoring = Monitoring([failing, sibling])
    with trio.move_on_after(185):
        await monitoring.run()
    assert failing.runs == [10, 20, 40, 80, 140, 150, 160, 170, 180]
    assert sibling.runs == list(range(10, 190, 10))


@in_virtual_time
async def test_status_tells_failures_in_a_row() -> None:
    failing = Counting(1, fails_in=range(1, 3))
    monitoring = Monitoring([failing])
    with trio.move_on_after(2.5):
        await monitoring.run()
    assert monitoring.statuses()["counting"]["failures"] == 2


def test_retry_interval_is_at_most_a_minute_or_the_interval() -> None:
    assert retry_interval(10, 0) == retry_interval(10, 1) == 10
    assert retry_interval(10, 100_000) == 60
    assert retry_interval(300, 7) == 300


async def test_monitor_that_blocks_the_loop_is_named(caplog: Log) -> None:
    class Blocking(Monitor):
        async def run_once(self) -> None:
            time.sleep(0.11)  # noqa: ASYNC251 - this is what is found
            await trio.lowlevel.checkpoint()

    monitoring = Monitoring([Blocking(interval=0.001), Counting(0.001)])
    with trio.move_on_after(0.3):
        await monitoring.run()
    assert caplog.text.count("monitor blocking: run_once() blocked the event loop") == 1
    statuses = monitoring.statuses()
    blocked = statuses["blocking"]["blocked"]
    assert isinstance(blocked, float)
    assert blocked > 0.1
    assert "blocked" not in statuses["counting"]
