"""Ready, not ready, sick, too old, dismissed: one child in virtual time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, evolve, field
from trio.testing import wait_all_tasks_blocked

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import ChildPlan
from trio_supervisor.controller.child.exit_messages import Fault
from trio_supervisor.controller.events import (
    Event,
    ProcessStopping,
    WorkerReady,
    WorkerUnready,
)
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.restart import Cause, RestartPolicy, RestartRules
from trio_supervisor.process.child import Process
from trio_supervisor.process.cleanup.stopping import StopPlan
from trio_supervisor.testing import FakeProcess, in_virtual_time

PLAN = ChildPlan(
    name="web.0",
    service="web",
    stop=StopPlan(timeout=2),
    rules=RestartRules(backoff=None, intensity=None),
    startup_timeout=5.0,
)


class FixedJitter(random.Random):
    """Draws the same number each time."""

    def random(self) -> float:
        return 0.5


@define(eq=False)
class Stage:
    """A child, its processes, and what it told."""

    processes: list[FakeProcess] = field(factory=list)
    events: list[tuple[float, Event]] = field(factory=list)
    child: Child = field(init=False)

    async def spawn(self, incarnation: int) -> Process:
        await trio.lowlevel.checkpoint()
        self.processes.append(FakeProcess(pid=1000 + incarnation))
        return self.processes[-1]

    def on_change(self, child: Child) -> None: ...

    def on_process(self, child: Child, process: Process, is_running: bool) -> None: ...

    def on_event(self, event: Event) -> None:
        self.events.append((trio.current_time(), event))

    def says(self, *lines: str) -> None:
        self.child.notified(self.processes[-1].says(*lines))

    def causes(self) -> list[tuple[float, str]]:
        return [(t, e.cause) for t, e in self.events if isinstance(e, ProcessStopping)]

    def kinds(self) -> list[str]:
        shown = [
            e for _, e in self.events if isinstance(e, WorkerReady | WorkerUnready)
        ]
        return [event.kind for event in shown]


@asynccontextmanager
async def open_stage(**changes: Any) -> AsyncIterator[Stage]:
    stage = Stage()
    stage.child = Child(evolve(PLAN, **changes), stage.spawn, stage, FixedJitter())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.child.run)
        await wait_all_tasks_blocked()
        yield stage
        nursery.cancel_scope.cancel()
    assert all(process.is_gone for process in stage.processes)


# What it says itself.


@in_virtual_time
async def test_one_may_say_that_it_is_not_ready_and_is_let_alone() -> None:
    """For as long as it likes: that is no fault, and no startup."""
    async with open_stage() as on:
        on.says("READY=1")
        assert on.child.ready_at is not None
        on.says("STATUS=the queue is full", "READY=0")
        assert on.child.state is State.UNREADY
        assert on.child.ready_at is None
        await trio.sleep(86_400)
        on.says("READY=1")
        assert on.child.state is State.READY
        assert on.kinds() == ["ready", "unready", "ready"]
        [unready] = [e for _, e in on.events if isinstance(e, WorkerUnready)]
        assert unready.reason == "the queue is full"
        assert on.child.incarnation == 1


@in_virtual_time
async def test_not_ready_before_it_ever_was_is_no_news() -> None:
    async with open_stage() as on:
        on.says("READY=0")
        assert on.child.state is State.STARTING
        assert on.kinds() == []
        await on.child.wait_state(State.STOPPING)
        assert trio.current_time() == 5


@in_virtual_time
async def test_heartbeats_are_due_of_one_that_is_not_ready_too() -> None:
    async with open_stage(health_check_timeout=3.0) as on:
        on.says("READY=1")
        await trio.sleep(1)
        on.says("READY=0")
        await on.child.wait_state(State.STOPPING)
        assert on.causes() == [(3, "unhealthy")]


@in_virtual_time
async def test_one_that_is_unready_can_be_restarted() -> None:
    async with open_stage() as on:
        on.says("READY=1")
        on.says("READY=0")
        on.child.request_restart()
        await wait_all_tasks_blocked()
        assert (on.child.state, on.child.incarnation) == (State.STARTING, 2)
        assert on.child.why == "restart requested"


# What a probe says.


def prober(*moves: tuple[float, Callable[[Child], None]]) -> Any:
    """Return one that does each of *moves* after its number of seconds."""

    async def probe(child: Child, process: Process) -> None:
        for seconds, move in moves:
            await trio.sleep(seconds)
            move(child)
        await trio.sleep_forever()

    return probe


def good(child: Child) -> None:
    child.set_probe_readiness(True)


def bad(child: Child) -> None:
    child.set_probe_readiness(False)


@in_virtual_time
async def test_a_probe_makes_one_ready_that_says_nothing_itself() -> None:
    plan = {"notifies": False, "prober": prober((2, good), (3, bad), (4, good))}
    async with open_stage(**plan) as on:
        await trio.sleep(1)
        assert on.child.state is State.STARTING
        await trio.sleep(20)
        assert on.kinds() == ["ready", "unready", "ready"]
        assert [
            t for t, e in on.events if isinstance(e, WorkerReady | WorkerUnready)
        ] == [2, 5, 9]


@in_virtual_time
async def test_one_that_notifies_and_is_probed_needs_both() -> None:
    async with open_stage(prober=prober((2, good))) as on:
        on.says("READY=1")
        assert on.kinds() == []
        await trio.sleep(3)
        assert on.child.state is State.READY


@in_virtual_time
async def test_what_one_says_that_does_not_notify_counts_for_nothing() -> None:
    async with open_stage(notifies=False) as on:
        assert on.child.state is State.READY
        on.says("READY=0")
        assert on.child.state is State.READY


FAULT = Fault("liveness probe failed", "liveness.failures")


@pytest.mark.parametrize("cause", [Cause.UNHEALTHY, Cause.STARTUP_TIMEOUT])
@in_virtual_time
async def test_one_that_a_probe_finds_sick_is_replaced(cause: Cause) -> None:
    sick = prober((1, good), (2, lambda child: child.fail_probe(cause, FAULT)))
    async with open_stage(notifies=False, prober=sick) as on:
        await trio.sleep(4.5)
        assert on.causes() == [(3, cause.value)]
        assert on.child.incarnation == 2
        assert on.child.state is State.READY
        await trio.sleep(60)
        assert on.child.incarnation == 22, "each gets a probe of its own"


# How long it lives.


@in_virtual_time
async def test_one_that_is_old_enough_is_replaced_a_little_early() -> None:
    """With this jitter after 95 of 100 seconds; each life counts from its start."""
    async with open_stage(max_lifetime=100, notifies=False) as on:
        await trio.sleep(200)
        assert on.causes() == [(95, "lifetime"), (190, "lifetime")]
        assert on.child.why == "end of lifetime (max_lifetime=100 s)"


@in_virtual_time
async def test_an_old_one_that_is_restarted_is_young_again() -> None:
    async with open_stage(max_lifetime=100, notifies=False) as on:
        await trio.sleep(90)
        on.child.request_restart()
        await trio.sleep(90)
        assert on.causes() == [(90, "restart")]


# How it asks for another.


@in_virtual_time
async def test_one_that_requests_its_restart_is_replaced_once() -> None:
    """It is a planned restart; a second request of the same process is ignored."""
    async with open_stage(rules=RestartRules(policy=RestartPolicy.NEVER)) as on:
        on.says("READY=1")
        await trio.sleep(1)
        on.says("RESTART=enough")
        on.says("RESTART=more")
        await trio.sleep(1)
        assert on.causes() == [(1, "worker")]
        assert on.child.why == "restart requested by the worker: enough"
        assert on.child.incarnation == 2
        assert on.child.crashes == 0


@in_virtual_time
async def test_one_that_requests_its_restart_at_once_runs_for_a_second() -> None:
    async with open_stage() as on:
        await trio.sleep(4)
        on.says("READY=1")
        await trio.sleep(0.25)
        on.says("RESTART=enough")
        await trio.sleep(0.7)
        assert on.causes() == []
        await trio.sleep(0.1)
        assert on.causes() == [(5, "worker")]


@in_virtual_time
async def test_one_that_requests_its_restart_early_is_first_ready_for_a_second() -> (
    None
):
    """It would be restarted again and again, without any delay."""
    async with open_stage(startup_timeout=None) as on:
        on.says("RESTART=enough")
        await trio.sleep(4)
        assert on.causes() == []
        on.says("READY=1")
        await trio.sleep(2)
        assert on.causes() == [(5, "worker")]
        assert on.child.why == "restart requested by the worker: enough"


# How it goes for good.


@in_virtual_time
async def test_a_retired_one_ends_and_is_never_started_again() -> None:
    async with open_stage() as on:
        on.says("READY=1")
        on.child.retire(Cause.SCALE, "too many")
        on.child.request_start()
        on.child.request_restart()
        await on.child.wait_state(State.STOPPED)
        await trio.sleep(10)
        assert on.causes() == [(0, "scale")]
        assert (on.child.incarnation, on.child.is_wanted) == (1, False)


@pytest.mark.parametrize("state", [State.STOPPED, State.FAILED])
@in_virtual_time
async def test_one_that_is_at_rest_can_be_retired(state: State) -> None:
    """Its task ends, although nothing has to be done."""
    stage = Stage()
    plan = evolve(PLAN, rules=evolve(PLAN.rules, give_up_on=frozenset({3})))
    stage.child = Child(plan, stage.spawn, stage, FixedJitter())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.child.run)
        await wait_all_tasks_blocked()
        if state is State.FAILED:
            stage.processes[0].exit(3)
        else:
            stage.child.request_stop()
        await stage.child.wait_state(state)
        stage.child.retire(Cause.RELOAD)
    assert stage.child.state is State.STOPPED
