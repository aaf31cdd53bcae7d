"""Log level of an exit: a warning only where the service calls it a failure."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
import trio
from attrs import define, evolve, field

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import ChildPlan
from trio_supervisor.controller.events import Event, ProcessExited, StartFailed
from trio_supervisor.policy.restart import RestartPolicy, RestartRules
from trio_supervisor.process.child import Process
from trio_supervisor.testing import FakeProcess

INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR
PLAN = ChildPlan(name="web.0", service="web", startup_timeout=5.0)
ON_FAILURE = RestartPolicy.ON_FAILURE


@define(eq=False)
class Recorder:
    """A watcher that keeps the events."""

    events: list[Event] = field(factory=list)

    def on_change(self, child: Child) -> None:
        return

    def on_process(self, child: Child, process: Process, is_running: bool) -> None:
        return

    def on_event(self, event: Event) -> None:
        self.events.append(event)


@define(eq=False)
class Running:
    """One worker whose process the test controls."""

    child: Child
    process: FakeProcess
    recorder: Recorder

    async def exit_event(self) -> ProcessExited:
        """Wait until the process is reaped; return its event."""
        with trio.fail_after(100):
            while True:
                for event in self.recorder.events:
                    if isinstance(event, ProcessExited):
                        return event
                await self.child.wait_news()


async def run_worker(
    nursery: trio.Nursery, plan: ChildPlan = PLAN, **rules: Any
) -> Running:
    """Start a worker under *rules*, and let it become ready."""
    process, recorder = FakeProcess(pid=7), Recorder()

    async def spawn(incarnation: int) -> FakeProcess:
        await trio.lowlevel.checkpoint()
        return process if incarnation == 1 else FakeProcess(pid=7 + incarnation)

    plan = evolve(plan, rules=RestartRules(backoff=None, **rules))
    child = Child(plan, spawn, recorder, random.Random(0))
    nursery.start_soon(child.run)
    while child.process is None:
        await child.wait_news()
    child.notified(process.says("READY=1"))
    return Running(child, process, recorder)


@pytest.mark.parametrize(
    ("rules", "returncode", "level", "next_step"),
    [
        pytest.param({}, 0, INFO, "restarting", id="success"),
        pytest.param({}, 3, WARNING, "restarting", id="failure"),
        pytest.param({}, -15, WARNING, "restarting", id="killed"),
        pytest.param(
            {"success": frozenset({0, 3}), "policy": ON_FAILURE},
            3,
            INFO,
            'not restarting (restart="on-failure")',
            id="listed as success",
        ),
        pytest.param(
            {"success": frozenset({3})}, 0, WARNING, "restarting", id="0 not listed"
        ),
        pytest.param(
            {"success": frozenset({0, -10}), "policy": ON_FAILURE},
            -10,
            INFO,
            'not restarting (restart="on-failure")',
            id="signal listed as success",
        ),
        pytest.param(
            {"give_up_on": frozenset({78})},
            78,
            WARNING,
            "not restarting (give_up_on)",
            id="give up",
        ),
        pytest.param(
            {"give_up_on": frozenset({3}), "success": frozenset({0, 3})},
            3,
            INFO,
            "not restarting (give_up_on)",
            id="give up on a success",
        ),
    ],
)
async def test_exit_level_follows_success_exit_codes(
    rules: dict[str, Any],
    returncode: int,
    level: int,
    next_step: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        running = await run_worker(nursery, **rules)
        running.process.exit(returncode)
        event = await running.exit_event()
        nursery.cancel_scope.cancel()
    assert (event.level, event.next_step) == (level, next_step)
    assert event.is_failure == (level == WARNING)


async def test_exit_level_planned_stop_is_info(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The worker dies of the stop signal, which is no failure."""
    async with trio.open_nursery() as nursery:
        running = await run_worker(nursery)
        running.child.request_stop("deploy")
        event = await running.exit_event()
        nursery.cancel_scope.cancel()
    assert (event.returncode, event.level) == (-15, INFO)
    assert str(event) == "killed by SIGTERM (pid 7); not restarting (deploy)"


async def test_exit_level_after_health_check_timeout_is_warning(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A worker stopped for missing heartbeats has failed, with any exit code."""
    plan = evolve(PLAN, health_check_timeout=30.0)
    async with trio.open_nursery() as nursery:
        running = await run_worker(nursery, plan)
        running.process.stopping_takes = 5.0
        await trio.sleep(31)
        running.process.exit(0)
        event = await running.exit_event()
        nursery.cancel_scope.cancel()
    assert (event.returncode, event.level) == (0, WARNING)


async def test_start_level_cancelled_start_is_info(
    autojump_clock: trio.testing.MockClock,
) -> None:
    recorder = Recorder()

    async def spawn(incarnation: int) -> FakeProcess:
        await trio.sleep_forever()
        raise AssertionError

    async with trio.open_nursery() as nursery:
        child = Child(PLAN, spawn, recorder, random.Random(0))
        nursery.start_soon(child.run)
        await trio.sleep(1)
        child.request_stop()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    (event,) = recorder.events
    assert isinstance(event, StartFailed)
    assert event.level == INFO
    assert str(event) == "start cancelled; not restarting (stop requested)"
