"""Groups that are restarted together, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.kits.controller import (
    NEVER,
    Life,
    Simulation,
    open_simulation,
    script,
    service,
)
from trio_supervisor.application import Application, Group
from trio_supervisor.controller.events import (
    GroupFailed,
    ProcessExited,
    RestartLimitReached,
)
from trio_supervisor.errors import RestartLimitError, SignificantServiceError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.testing import in_virtual_time


def incarnations(sim: Simulation) -> list[int]:
    return [child.incarnation for child in sim.controller.generation.children]


def check_apart(sim: Simulation, crash: float, names: Sequence[str]) -> None:
    """Of *names* none was started again before all that was to end had ended."""
    last_end = max(t for t, name in sim.ended if name in names and t >= crash)
    starts = [t for t, name in sim.started if name in names and t >= crash]
    assert starts
    assert min(starts) >= last_end


@in_virtual_time
async def test_one_for_all_ends_all_before_anything_begins_again() -> None:
    app = Application(
        [
            Group([service(n) for n in "abc"], strategy="one_for_all"),
            service("other"),
        ]
    )
    slow = Life(stopping_takes=3.0)
    lives = script(
        {"a.0": [slow], "b.0": [Life(exits_after=10, returncode=1)], "c.0": [slow]}
    )
    async with open_simulation(app, lives) as sim:
        await trio.sleep(30)
        assert incarnations(sim) == [2, 2, 2, 1]
        # Neither needs the other: they end side by side.
        assert sorted(sim.ended) == [(10, "b.0"), (13, "a.0"), (13, "c.0")]
        assert sorted(sim.started[4:]) == [(13, "a.0"), (13, "b.0"), (13, "c.0")]
        assert sim.child("a.0").why == "restart with its group: b.0 crashed"
        assert sim.child("b.0").why == "exited with code 1"


@in_virtual_time
async def test_what_crashes_while_its_group_is_ended_is_no_further_failure() -> None:
    """As in OTP; here `a`, while `c` takes its time."""
    group = Group(
        [service(n) for n in "abc"], strategy="one_for_all", intensity=1, period=60
    )
    lives = script(
        {
            "a.0": [Life(exits_after=11, returncode=1)],
            "b.0": [Life(exits_after=10, returncode=1)],
            "c.0": [Life(stopping_takes=3.0)],
        }
    )
    async with open_simulation(Application([group]), lives) as sim:
        await trio.sleep(30)
        assert not sim.controller.is_stopping
        assert not sim.events(GroupFailed)
        assert set(sim.states.values()) == {State.READY}
        assert max(incarnations(sim)) == 2


@in_virtual_time
async def test_rest_for_one_restarts_what_comes_after() -> None:
    """And in order: each child needs the earlier ones."""
    group = Group([service(n) for n in "abcd"], strategy="rest_for_one")
    lives = script({"b.0": [Life(exits_after=10, returncode=1)]})
    async with open_simulation(Application([group]), lives) as sim:
        await trio.sleep(30)
        assert incarnations(sim) == [1, 2, 2, 2]
        assert sim.started[4:] == [
            (10.25, "b.0"),
            (10.5, "c.0"),
            (10.75, "d.0"),
        ]


@pytest.mark.parametrize("condition", ["started", "ready"])
@in_virtual_time
async def test_a_restarted_group_begins_in_the_order_of_its_needs(
    condition: str,
) -> None:
    """That one was started before the restart does not count."""
    group = Group(
        [service("b", depends_on={"a": condition}), service("a")],
        strategy="one_for_all",
    )
    lives = script({"a.0": [Life(exits_after=10, returncode=1), Life(spawn_takes=2.0)]})
    async with open_simulation(Application([group]), lives) as sim:
        await trio.sleep(30)
        ready = 0.25 if condition == "ready" else 0.0
        assert sim.started[2:] == [(12, "a.0"), (12 + ready, "b.0")]


@in_virtual_time
async def test_two_crashes_at_once_restart_the_group_once() -> None:
    group = Group([service(n) for n in "abc"], strategy="one_for_all")
    crash = Life(exits_after=10, returncode=1)
    lives = script({"a.0": [crash], "c.0": [crash], "b.0": [Life(stopping_takes=5)]})
    async with open_simulation(Application([group]), lives) as sim:
        await trio.sleep(30)
        assert incarnations(sim) == [2, 2, 2]
        check_apart(sim, 10, ["a.0", "b.0", "c.0"])


@in_virtual_time
async def test_one_that_is_just_being_started_is_waited_for() -> None:
    """Its process comes when the others have gone, and is ended as well."""
    group = Group([service("a"), service("b")], strategy="one_for_all")
    lives = script(
        {
            "a.0": [Life(exits_after=1, returncode=1)],
            "b.0": [Life(spawn_takes=5.0)],
        }
    )
    async with open_simulation(Application([group]), lives) as sim:
        await trio.sleep(30)
        assert sim.started == [(0, "a.0"), (5, "b.0"), (5, "a.0"), (5, "b.0")] or (
            sim.started[:2] == [(0, "a.0"), (5, "b.0")]
            and sorted(sim.started[2:]) == [(5, "a.0"), (5, "b.0")]
        )
        check_apart(sim, 1, ["a.0", "b.0"])


@in_virtual_time
async def test_what_was_stopped_by_hand_stays_so() -> None:
    """Before a group is restarted, and while it is."""
    group = Group([service(n) for n in "abc"], strategy="one_for_all")
    lives = script(
        {"b.0": [Life(exits_after=10, returncode=1)], "c.0": [Life(stopping_takes=5)]}
    )
    async with open_simulation(Application([group]), lives) as sim:
        await sim.controller.stop("a")
        await trio.sleep(12)
        await sim.controller.stop("c")
        await sim.settle()
        assert sim.states == {
            "a.0": State.STOPPED,
            "b.0": State.READY,
            "c.0": State.STOPPED,
        }


@in_virtual_time
async def test_a_group_past_its_intensity_fails_into_the_one_around_it() -> None:
    """The third crash within a minute: the whole outer group is restarted."""
    inner = Group([service("a"), service("b")], name="inner", intensity=2, period=60)
    app = Application([Group([inner, service("c")], strategy="one_for_all")])
    crash = Life(exits_after=1, returncode=1)
    lives = script({"a.0": 3 * [crash]})
    async with open_simulation(app, lives) as sim:
        await trio.sleep(30)
        assert incarnations(sim) == [4, 2, 2]
        assert sim.events(GroupFailed) == [
            (
                3,
                "inner: restart limit of group inner reached (intensity=2, "
                "period=60 s); restarting a, b, c",
            )
        ]


@in_virtual_time
async def test_one_that_was_past_its_own_intensity_begins_afresh_with_its_group() -> (
    None
):
    """Else its next crash would be the group's next failure, at once."""
    inner = Group([service("a", intensity=2), service("b")], name="inner")
    app = Application([Group([inner, service("c")], intensity=2)])
    crash = Life(exits_after=1, returncode=1)
    async with open_simulation(app, script({"a.0": 8 * [crash]})) as sim:
        await trio.sleep(30)
        assert [moment for moment, _ in sim.events(GroupFailed)] == [3, 6]
        assert incarnations(sim) == [9, 3, 1]
        assert sim.failure is None


@in_virtual_time
async def test_the_outermost_group_gives_up_for_all() -> None:
    app = Application([service("a"), service("b", count=2)], intensity=2, period=60)
    crash = Life(exits_after=1, returncode=1)
    lives = script({"a.0": [crash], "b.0": [crash], "b.1": [crash]})
    async with open_simulation(app, lives) as sim:
        with trio.fail_after(60):
            await sim.is_over.wait()
        assert isinstance(sim.failure, RestartLimitError)
        assert (
            "restart limit of group application reached (intensity=2, period=60 s)"
            in str(sim.failure)
        )
        assert len(sim.events(RestartLimitReached)) == 1


@in_virtual_time
async def test_planned_restarts_restart_nobody_else() -> None:
    group = Group([service(n) for n in "abc"], strategy="one_for_all", intensity=0)
    async with open_simulation(Application([group])) as sim:
        for _ in range(5):
            await sim.controller.restart("b")
        assert incarnations(sim) == [1, 6, 1]


@in_virtual_time
async def test_one_that_is_left_ended_restarts_nobody() -> None:
    """As OTP's temporary children."""
    group = Group([service("a", restart="never"), service("b")], strategy="one_for_all")
    lives = script({"a.0": [Life(exits_after=1, returncode=1)]})
    async with open_simulation(Application([group]), lives) as sim:
        await trio.sleep(30)
        assert incarnations(sim) == [1, 1]


@in_virtual_time
async def test_a_shutdown_in_the_middle_of_a_group_restart_ends_all() -> None:
    group = Group([service(n) for n in "abc"], strategy="one_for_all")
    slow = Life(stopping_takes=5.0)
    lives = script(
        {"a.0": [slow], "b.0": [Life(exits_after=10, returncode=1)], "c.0": [slow]}
    )
    async with open_simulation(Application([group]), lives) as sim:
        await trio.sleep(12)
        sim.controller.shutdown("now")
        with trio.fail_after(60):
            await sim.is_over.wait()
        assert [moment for moment, _ in sim.started] == [0, 0, 0]


@in_virtual_time
async def test_a_significant_service_that_fails_ends_everything() -> None:
    app = Application(
        [service("main", restart="never", significant=True), service("b")]
    )
    lives = script({"main.0": [Life(exits_after=5, returncode=7)]})
    async with open_simulation(app, lives) as sim:
        with trio.fail_after(60):
            await sim.is_over.wait()
        assert isinstance(sim.failure, SignificantServiceError)
        assert "main.0 of a significant service failed (exit code 7)" in str(
            sim.failure
        )


@in_virtual_time
async def test_a_significant_service_that_is_done_ends_everything_in_peace() -> None:
    app = Application(
        [service("main", restart="on-failure", significant=True), service("b")]
    )
    lives = script({"main.0": [Life(ready_after=NEVER, exits_after=5)]})
    async with open_simulation(app, lives) as sim:
        with trio.fail_after(60):
            await sim.is_over.wait()
        assert sim.failure is None


@in_virtual_time
async def test_a_significant_service_that_is_stopped_by_hand_ends_nothing() -> None:
    """Not even one that had failed before, and so had been restarted."""
    app = Application([service("main", significant=True), service("b")])
    lives = script({"main.0": [Life(exits_after=5, returncode=7)]})
    async with open_simulation(app, lives) as sim:
        await trio.sleep(10)
        await sim.controller.stop("main")
        await sim.settle()
        assert not sim.controller.is_stopping
        assert len(sim.events(ProcessExited)) == 2
        await wait_all_tasks_blocked()
