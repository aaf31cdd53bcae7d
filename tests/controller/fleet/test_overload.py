"""Silent processes on machines that are busy, suspended or fine, in virtual time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from attrs import define, field

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import (
    ALWAYS_PERMITTED,
    ChildPlan,
    Permission,
    _AlwaysPermitted,
)
from trio_supervisor.controller.events import Event
from trio_supervisor.controller.fleet.overload import OverloadControl
from trio_supervisor.controller.loop_lag import TICK, LoopClock
from trio_supervisor.policy.admission import IDLE, limit_for
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.overload import HOLD, MOST, STAGGER, Pressure
from trio_supervisor.policy.restart import RestartPolicy, RestartRules
from trio_supervisor.process.child import Process
from trio_supervisor.testing import FakeProcess, in_virtual_time, sleep_through

HEALTH = 3.0
STARTUP = 7.0
LIMIT = limit_for(2)


@define(eq=False)
class FakeMachine:
    """One on which each process waits for a processor for part of the time."""

    cores: int = 2
    starved: dict[int, float] = field(factory=dict)
    """Which part of its time a process waits, by its id."""
    stopped: set[int] = field(factory=set)
    says: Pressure = field(factory=Pressure)

    def queued(self, process_id: int) -> Mapping[int, float]:
        part = self.starved.get(process_id, 0.0)
        return {1: part * trio.current_time(), 2: 0.0}

    def busy(self, process_id: int) -> float:
        return self.starved.get(process_id, 0.0) * trio.current_time()

    def stalled(self, process_id: int) -> float:
        return 0.0

    def is_stopped(self, process_id: int) -> bool:
        return process_id in self.stopped

    def pressure(self) -> Pressure:
        return self.says


@define(eq=False)
class Ward:
    """Some children whose heartbeats can be stopped, and what happened."""

    machine: FakeMachine
    children: list[Child] = field(factory=list)
    said: list[tuple[float, str, str]] = field(factory=list)
    beating: set[Child] = field(factory=set)
    load_control: OverloadControl = field(init=False)

    def on_change(self, child: Child) -> None:
        pass

    def on_process(self, child: Child, process: Process, is_running: bool) -> None:
        if is_running:
            child.listen(lambda: None, lambda: self._age(child))

    def on_event(self, event: Event) -> None:
        self.said.append((trio.current_time(), event.name, event.kind))

    def kinds(self, kind: str) -> list[tuple[float, str]]:
        return [(moment, name) for moment, name, other in self.said if other == kind]

    def _age(self, child: Child) -> float | None:
        if child in self.beating:
            self._beats[child] = trio.current_time()
        last = self._beats.get(child)
        return None if last is None else trio.current_time() - last

    _beats: dict[Child, float] = field(factory=dict)

    def silence(self, *children: Child) -> None:
        for child in children:
            self._age(child)
            self.beating.discard(child)


def be_ready(child: Child) -> None:
    assert isinstance(child.process, FakeProcess)
    child.notified(child.process.says("READY=1"))


def children(ward: Ward, state: State) -> list[Child]:
    return [child for child in ward.children if child.state is state]


@asynccontextmanager
async def open_ward(
    count: int,
    *,
    is_ready: bool = True,
    says: Pressure | None = None,
    permission: Permission[Child] = ALWAYS_PERMITTED,
) -> AsyncIterator[Ward]:
    ward = Ward(FakeMachine(says=says or Pressure()))
    ward.load_control = OverloadControl(
        lambda: ward.children, ward.on_event, ward.machine
    )

    def spawn(number: int) -> Callable[..., object]:
        async def start(incarnation: int) -> FakeProcess:
            return FakeProcess(pid=1 + number)

        return start

    rules = RestartRules(policy=RestartPolicy.NEVER)
    async with trio.open_nursery() as nursery:
        for number in range(count):
            plan = ChildPlan(
                name=f"web.{number}",
                service="web",
                rules=rules,
                startup_timeout=STARTUP,
                health_check_timeout=HEALTH,
            )
            start: Any = spawn(number)
            child = Child(plan, start, ward, random.Random(0), permission=permission)
            child.load_control = ward.load_control
            ward.children.append(child)
            ward.beating.add(child)
            nursery.start_soon(child.run)
        nursery.start_soon(ward.load_control.clock.run)
        await trio.testing.wait_all_tasks_blocked()
        for child in ward.children if is_ready else ():
            be_ready(child)
        yield ward
        nursery.cancel_scope.cancel()


def stopped(ward: Ward) -> list[tuple[float, str]]:
    return ward.kinds("stopping")


@in_virtual_time
async def test_on_a_machine_that_is_fine_a_timeout_is_a_timeout() -> None:
    async with open_ward(4) as ward:
        ward.silence(ward.children[2])
        await trio.sleep(60)
        assert stopped(ward) == [(HEALTH, "web.2")]


@pytest.mark.parametrize(("part", "factor"), [(0.5, 2.0), (0.75, 4.0), (1.0, MOST)])
def test_the_time_in_which_it_waited_for_a_processor_does_not_count(
    part: float, factor: float
) -> None:
    """Within a bound: one that hangs on a machine that is busy is found, too."""

    @in_virtual_time
    async def run() -> None:
        async with open_ward(4) as ward:
            ward.machine.starved = {1: part}
            ward.silence(ward.children[0])
            await trio.sleep(100)
            [(moment, name)] = stopped(ward)
            assert name == "web.0"
            assert factor * HEALTH <= moment <= factor * HEALTH + 0.1

    run()


@in_virtual_time
async def test_a_start_is_given_the_time_that_it_waited_for_a_processor() -> None:
    async with open_ward(1, is_ready=False) as ward:
        ward.machine.starved = {1: 0.5}
        await trio.sleep(100)
        [(moment, _)] = stopped(ward)
        assert 2 * STARTUP <= moment <= 2 * STARTUP + 0.1


@in_virtual_time
async def test_when_most_are_late_on_a_busy_machine_none_is_stopped() -> None:
    """One event says so, and one that it is over; then those that hang are stopped."""
    async with open_ward(10) as ward:
        ward.machine.says = Pressure(cpu=99.0)
        ward.silence(*ward.children[:8])
        await trio.sleep(HEALTH + 5)
        assert [name for _, name, kind in ward.said if kind == "overloaded"] == [
            "controller"
        ]
        assert not stopped(ward)
        ward.beating.update(ward.children[:7])
        await trio.sleep(HEALTH)
        assert [kind for _, _, kind in ward.said[-5:]].count("recovered") == 1
        await trio.sleep(60)
        assert [name for _, name in stopped(ward)] == ["web.7"]
        assert len(ward.kinds("overloaded")) == len(ward.kinds("recovered")) == 1


@in_virtual_time
async def test_an_overload_is_no_excuse_for_ever() -> None:
    async with open_ward(3) as ward:
        ward.machine.says = Pressure(cpu=99.0)
        ward.silence(*ward.children)
        await trio.sleep(100)
        moments = [moment for moment, _ in stopped(ward)]
        assert len(moments) == 3
        assert MOST * HEALTH <= min(moments) <= MOST * HEALTH + HOLD
        assert all(b - a >= 1 for a, b in pairwise(moments))


@in_virtual_time
async def test_one_that_was_stopped_by_a_signal_is_found_in_an_overload_too() -> None:
    async with open_ward(10) as ward:
        ward.machine.says = Pressure(cpu=99.0)
        ward.machine.stopped = {1}
        ward.silence(*ward.children[:9])
        await trio.sleep(HEALTH + 1)
        assert [name for _, name in stopped(ward)] == ["web.0"]


@in_virtual_time
async def test_all_that_hang_on_a_machine_that_is_fine_are_stopped_in_turn() -> None:
    """A deadlock that all share is no overload."""
    async with open_ward(10) as ward:
        ward.silence(*ward.children)
        await trio.sleep(60)
        moments = sorted(moment for moment, _ in stopped(ward))
        assert len(moments) == 10
        assert moments[0] == HEALTH
        gaps = [b - a for a, b in pairwise(moments)]
        assert all(STAGGER - 1e-6 <= gap <= 4 * STAGGER for gap in gaps)
        assert not ward.kinds("overloaded")


@in_virtual_time
async def test_under_pressure_workers_start_a_few_at_a_time() -> None:
    """Those that are ready make room, and so do those that only sleep."""
    async with open_ward(30, is_ready=False, says=Pressure(cpu=99.0)) as ward:
        await trio.testing.wait_all_tasks_blocked()
        first = children(ward, State.STARTING)
        assert len(first) == LIMIT
        queue = children(ward, State.WAITING)
        assert {child.waiting_for for child in queue} == {
            "other workers to start first (machine under pressure)"
        }
        be_ready(first[0])
        await trio.testing.wait_all_tasks_blocked()
        assert len(children(ward, State.STARTING)) == LIMIT
        busy = first[1].process_id
        assert busy is not None
        ward.machine.starved = {busy: 1.0}
        await trio.sleep(IDLE + TICK)  # but for one, they sleep
        assert len(children(ward, State.STARTING)) == LIMIT + LIMIT - 1


@in_virtual_time
async def test_when_the_pressure_is_gone_all_start() -> None:
    async with open_ward(30, is_ready=False, says=Pressure(cpu=99.0)) as ward:
        await trio.sleep(1)
        assert len(children(ward, State.STARTING)) == LIMIT
        ward.machine.says = Pressure()
        await trio.sleep(2 * TICK)
        assert len(children(ward, State.STARTING)) == 30


@in_virtual_time
async def test_one_that_is_stopped_while_it_waits_holds_up_nobody() -> None:
    async with open_ward(30, is_ready=False, says=Pressure(cpu=99.0)) as ward:
        await trio.testing.wait_all_tasks_blocked()
        *leaving, last = children(ward, State.WAITING)
        for child in leaving:
            child.request_stop()
        be_ready(children(ward, State.STARTING)[0])
        await trio.testing.wait_all_tasks_blocked()
        assert last.state is State.STARTING
        assert {child.state for child in leaving} == {State.STOPPED}


@in_virtual_time
async def test_those_stopped_by_a_signal_make_no_overload() -> None:
    """An operator, or a debugger, has stopped them: they say nothing of the machine."""
    async with open_ward(10) as ward:
        ward.machine.says = Pressure(cpu=99.0)
        ward.machine.stopped = set(range(1, 9))
        ward.silence(*ward.children[:9])
        await trio.sleep(HEALTH + 15)
        assert len(stopped(ward)) == 9
        assert not ward.kinds("overloaded")


@in_virtual_time
async def test_one_that_ends_before_it_is_ready_makes_room() -> None:
    async with open_ward(30, is_ready=False, says=Pressure(cpu=99.0)) as ward:
        await trio.testing.wait_all_tasks_blocked()
        ended = children(ward, State.STARTING)[0]
        assert isinstance(ended.process, FakeProcess)
        ended.process.exit(1)
        await trio.testing.wait_all_tasks_blocked()
        assert ended.state is State.FAILED
        assert len(children(ward, State.STARTING)) == LIMIT


class Obstacles(_AlwaysPermitted):
    """The company of children that wait for others."""

    def __init__(self) -> None:
        self.blocked: set[object] = set()

    def missing_needs_of(self, child: object) -> str:
        return "the database" if child in self.blocked else ""


@in_virtual_time
async def test_those_that_wait_for_something_else_are_not_queued() -> None:
    """Otherwise no worker behind them could start."""
    obstacles = Obstacles()
    async with open_ward(
        30, is_ready=False, says=Pressure(cpu=99.0), permission=obstacles
    ) as ward:
        await trio.testing.wait_all_tasks_blocked()
        starting = children(ward, State.STARTING)
        *blocked, last = children(ward, State.WAITING)
        obstacles.blocked.update(blocked)
        for child in blocked:
            child.check_again()
        await trio.testing.wait_all_tasks_blocked()
        be_ready(starting[0])
        await trio.testing.wait_all_tasks_blocked()
        assert last.state is State.STARTING
        assert {child.waiting_for for child in blocked} == {"the database"}


@in_virtual_time
async def test_a_suspended_host_kills_nobody() -> None:
    async with open_ward(5) as ward:
        ward.silence(*ward.children)
        await trio.sleep(1)
        for _ in range(20):
            sleep_through(1000)
            await trio.lowlevel.checkpoint()
        ward.beating.update(ward.children)
        await trio.sleep(60)
        assert not stopped(ward)


@in_virtual_time
async def test_a_clock_counts_what_the_loop_missed() -> None:
    clock = LoopClock()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        await trio.sleep(10)
        assert clock.lost(0, 10) == 0
        sleep_through(4)
        # Asked before its own task was woken, and after.
        assert 4 - TICK <= clock.lost(0, 14) <= 4
        await trio.sleep(1)
        assert 4 - TICK <= clock.lost(0, 15) <= 4
        assert clock.lost(13, 15) <= 1
        assert 0.3 <= clock.share(15) <= 0.4
        assert 4 - TICK <= clock.worst(15) <= 4
        await trio.sleep(20)
        assert clock.share(35) == clock.worst(35) == 0
        nursery.cancel_scope.cancel()
