"""Planned restarts, a few at a time, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.kits.controller import (
    NEVER,
    Life,
    Part,
    open_simulation,
    script,
    service,
)
from trio_supervisor.application import Application
from trio_supervisor.controller.events import ProcessStopping
from trio_supervisor.errors import UnavailableError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.testing import in_virtual_time

WEB = Application([service("web", count=4)])
SECOND = 1.0


def one_second(_: Part) -> Life:
    """A life that needs a second to be ready."""
    return Life(ready_after=SECOND)


def again(started: Sequence[tuple[float, str]], first: int) -> list[tuple[float, str]]:
    """What was started after the first processes of all.

    What is started in one instant is in no order.
    """
    return sorted(started[first:])


@in_virtual_time
async def test_all_at_once_is_over_when_all_are_ready() -> None:
    async with open_simulation(WEB, one_second) as sim:
        await trio.sleep(10)
        await sim.controller.restart("web")
        assert trio.current_time() == 11
        assert [moment for moment, _ in again(sim.started, 4)] == 4 * [10]


@pytest.mark.parametrize("most", [1, 2, 3])
@in_virtual_time
async def test_a_rolling_restart_waits_for_each_to_be_ready(most: int) -> None:
    """So many are away at once, and no more."""
    async with open_simulation(WEB, one_second) as sim:
        await trio.sleep(10)
        await sim.controller.restart("web", rolling=True, max_unavailable=most)
        assert again(sim.started, 4) == [(10 + n // most, f"web.{n}") for n in range(4)]


@in_virtual_time
async def test_so_many_planned_restarts_go_on_at_once_in_all() -> None:
    """Whoever wants them."""
    app = Application(
        [service("web", count=3), service("jobs", count=2)], max_restarts_concurrently=2
    )
    async with open_simulation(app, one_second) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sim.controller.restart, "web")
            nursery.start_soon(sim.controller.restart, "jobs")
        times = [moment for moment, _ in again(sim.started, 5)]
        assert times == [10, 10, 11, 11, 12]


@in_virtual_time
async def test_one_that_does_not_become_ready_leaves_the_rest_alone() -> None:
    app = Application([service("web", count=3, restart="never")])
    lives = script({"web.0": [Life(), Life(exits_after=0.125, returncode=1)]})
    async with open_simulation(app, lives) as sim:
        await trio.sleep(10)
        with pytest.raises(UnavailableError, match=r"web\.0 is not ready: failed"):
            await sim.controller.restart("web", rolling=True)
        await sim.settle()
        assert [c.incarnation for c in sim.controller.children.values()] == [
            2,
            1,
            1,
        ]


@in_virtual_time
async def test_a_cancelled_one_goes_no_further() -> None:
    """What has begun goes on, and counts for others until it is over."""
    async with open_simulation(WEB, one_second) as sim:
        await trio.sleep(10)
        with trio.move_on_after(1.5):
            await sim.controller.restart("web", rolling=True)
        assert again(sim.started, 4) == [(10, "web.0"), (11, "web.1")]
        await sim.controller.restart("web.2", "web.3", rolling=True)
        assert again(sim.started, 6) == [(12, "web.2"), (13, "web.3")]


@in_virtual_time
async def test_one_that_is_away_by_itself_is_waited_for() -> None:
    """A crash takes the place of a planned restart, until it is repaired."""
    lives = script({"web.3": [Life(exits_after=10, returncode=1), Life(ready_after=5)]})
    async with open_simulation(WEB, lives) as sim:
        await trio.sleep(11)
        await sim.controller.restart("web.0", rolling=True)
        assert sim.started[-1] == (15, "web.0")


@in_virtual_time
async def test_a_shutdown_ends_it_and_nothing_is_started_again() -> None:
    """Although all are away then, and one that is away may be restarted."""
    slow = Life(ready_after=SECOND, stopping_takes=2.0)
    async with open_simulation(WEB, lambda _: slow) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:

            async def roll() -> None:
                with pytest.raises(UnavailableError):
                    await sim.controller.restart("web", rolling=True)

            nursery.start_soon(roll)
            await trio.sleep(2.5)
            sim.controller.shutdown("now")
            with trio.fail_after(60):
                await sim.is_over.wait()
        assert again(sim.started, 4) == [(12, "web.0")]


@in_virtual_time
async def test_a_shutdown_makes_no_room_for_those_that_wait() -> None:
    """What is restarted is stopped first, and nobody takes its turn."""
    app = Application([service("a"), service("b")], max_restarts_concurrently=1)
    lives = script(
        {"b.0": [Life(), Life(ready_after=20)], "a.0": [Life(stopping_takes=3)]}
    )
    async with open_simulation(app, lives) as sim:
        await trio.sleep(10)

        async def restart(name: str) -> None:
            with pytest.raises(UnavailableError):
                await sim.controller.restart(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(restart, "b")
            await trio.sleep(1)
            nursery.start_soon(restart, "a")
            await trio.sleep(1)
            sim.controller.shutdown("now")
            await sim.is_over.wait()
        assert sim.started[2:] == [(10, "b.0")]
        stopped = [words.partition(":")[0] for _, words in sim.events(ProcessStopping)]
        assert stopped[:3] == ["b.0", "b.0", "a.0"]


@in_virtual_time
async def test_one_that_is_stopped_while_it_waits_for_its_turn_stays_so() -> None:
    async with open_simulation(WEB, one_second) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: sim.controller.restart("web", rolling=True))
            await trio.sleep(0.5)
            await sim.controller.stop("web.2")
        assert again(sim.started, 4) == [
            (10, "web.0"),
            (11, "web.1"),
            (12, "web.3"),
        ]
        assert sim.child("web.2").state is State.STOPPED


@in_virtual_time
async def test_one_that_is_scaled_away_meanwhile_is_passed_over() -> None:
    async with open_simulation(WEB, one_second) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: sim.controller.restart("web", rolling=True))
            await trio.sleep(0.5)
            await sim.controller.scale({"web": 2})
        assert again(sim.started, 4) == [(10, "web.0"), (11, "web.1")]


@in_virtual_time
async def test_workers_at_the_end_of_their_lifetime_take_turns() -> None:
    """Up to a tenth early, and one after the other."""
    app = Application(
        [service("web", count=5, max_lifetime=100)], max_restarts_concurrently=1
    )
    async with open_simulation(app, lambda _: Life(ready_after=20)) as sim:
        await trio.sleep(180)
        moments = [moment for moment, _ in again(sim.started, 5)]
        assert 90 <= moments[0] <= 100
        assert moments == [moments[0] + 20 * n for n in range(5)]
        stops = sim.events(ProcessStopping)
        assert len(stops) == 5
        assert all("max_lifetime=" in words for _, words in stops)


@in_virtual_time
async def test_one_whose_lifetime_is_over_and_that_is_stopped_stays_so() -> None:
    """It waited for its turn, which comes when nobody wants it any more."""
    app = Application(
        [service("web", count=2, max_lifetime=100)], max_restarts_concurrently=1
    )
    async with open_simulation(app, lambda _: Life(ready_after=30)) as sim:
        await trio.sleep(101)
        [waiting] = [
            n for n, c in sim.controller.children.items() if c.incarnation == 1
        ]
        await sim.controller.stop(waiting)
        await trio.sleep(50)
        assert sim.child(waiting).state is State.STOPPED


@in_virtual_time
async def test_one_that_crashed_while_it_waited_for_its_turn_is_young_again() -> None:
    app = Application(
        [service("web", count=2, max_lifetime=100)], max_restarts_concurrently=1
    )
    async with open_simulation(app, lambda _: Life(ready_after=30)) as sim:
        await trio.sleep(101)
        [waiting] = [
            n for n, c in sim.controller.children.items() if c.incarnation == 1
        ]
        sim.process(waiting).exit(1)
        await trio.sleep(60)
        assert sim.child(waiting).incarnation == 2


@in_virtual_time
async def test_a_job_that_does_its_work_again_is_no_failure() -> None:
    app = Application([service("job", restart="on-failure"), service("web")])
    done = Life(ready_after=NEVER, exits_after=3)
    async with open_simulation(app, script({"job.0": [done, done]})) as sim:
        await trio.sleep(10)
        await sim.controller.restart("job", "web", rolling=True)
        await wait_all_tasks_blocked()
        assert trio.current_time() == 13
        assert sim.states == {"job.0": State.STOPPED, "web.0": State.READY}


# In order.

STACK = Application(
    [
        service("db", stop_timeout=60),
        service("web", count=2, depends_on={"db": "ready"}, stop_timeout=60),
        service("page", depends_on={"web": "started"}),
        service("alone"),
    ]
)


def draining(part: Part) -> Life:
    """A life that takes a second to begin, and one to end."""
    return Life(ready_after=SECOND, stopping_takes=SECOND)


@in_virtual_time
async def test_of_those_restarted_together_nothing_ends_before_what_needs_it() -> None:
    """Nor is anything started before what it needs is there again."""
    async with open_simulation(STACK, draining) as sim:
        await trio.sleep(10)
        await sim.controller.restart()
        assert sorted(sim.ended) == [
            (11, "alone.0"),
            (11, "page.0"),
            (12, "web.0"),
            (12, "web.1"),
            (13, "db.0"),
        ]
        assert again(sim.started, 5) == [
            (11, "alone.0"),
            (13, "db.0"),
            (14, "page.0"),
            (14, "web.0"),
            (14, "web.1"),
        ]
        assert trio.current_time() == 15
        await sim.check_picture()


@in_virtual_time
async def test_those_that_are_not_restarted_are_left_alone() -> None:
    async with open_simulation(STACK, draining) as sim:
        await trio.sleep(10)
        await sim.controller.restart("db", "page")
        # What is between both goes on, and what is needed through it is needed.
        assert sorted(sim.ended) == [(11, "page.0"), (12, "db.0")]
        assert again(sim.started, 5) == [(12, "db.0"), (12, "page.0")]


@in_virtual_time
async def test_what_was_stopped_is_started_in_order() -> None:
    async with open_simulation(STACK, draining) as sim:
        await trio.sleep(10)
        await sim.controller.stop("db")
        await trio.sleep(10)
        began = trio.current_time()
        await sim.controller.restart()
        assert trio.current_time() == began + 2
        assert set(sim.states.values()) == {State.READY}


@in_virtual_time
async def test_who_waits_for_one_that_does_not_come_back_waits_as_at_first() -> None:
    lives = script({"db.0": [Life(), Life(can_spawn=False)], "web.0": [], "page.0": []})
    app = Application(
        [service("db", restart="never"), service("web", depends_on={"db": "ready"})]
    )
    async with open_simulation(app, lives) as sim:
        await trio.sleep(10)
        with pytest.raises(
            UnavailableError,
            match=r"web\.0 is waiting for db to be ready, but db\.0 is failed",
        ):
            await sim.controller.restart()
        await trio.sleep(1)
        assert sim.states == {"db.0": State.FAILED, "web.0": State.WAITING}
        assert sim.child("web.0").waiting_for == "db to be ready"


@in_virtual_time
async def test_a_restart_in_order_that_is_cancelled_holds_nobody() -> None:
    async with open_simulation(STACK, draining) as sim:
        await trio.sleep(10)
        with trio.move_on_after(0.5):
            await sim.controller.restart()
        await sim.settle()
        assert set(sim.states.values()) == {State.READY}
        assert sim.child("db.0").incarnation == 1
        assert sim.child("page.0").incarnation == 2
        # All is well for the next one.
        await sim.controller.restart()
        assert sim.child("db.0").incarnation == 2


@in_virtual_time
async def test_one_that_is_scaled_away_meanwhile_fails_no_restart() -> None:
    lives = script({"web.3": [Life(), Life(ready_after=50)]})
    async with open_simulation(WEB, lives) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sim.controller.restart, "web")
            await trio.sleep(1)
            await sim.controller.scale({"web": 2})
        assert sim.running == ["web.0", "web.1"]
        assert trio.current_time() == 11


@in_virtual_time
async def test_one_that_is_stopped_before_it_is_started_was_not_late() -> None:
    lives = script({"web.0": [Life(spawn_takes=50)]})
    async with open_simulation(WEB, lives) as sim:
        await trio.sleep(1)
        await sim.controller.stop("web.0")
        assert sim.child("web.0").last_exit == "start cancelled"
        assert trio.current_time() == 1


@in_virtual_time
async def test_a_rolling_one_replaces_what_is_needed_first() -> None:
    """And waits for it: at no time is more away than of one service."""
    async with open_simulation(STACK, draining) as sim:
        await trio.sleep(10)
        await sim.controller.restart(rolling=True)
        assert again(sim.started, 5) == [
            (11, "alone.0"),
            (11, "db.0"),
            (13, "web.0"),
            (15, "web.1"),
            (17, "page.0"),
        ]
        assert trio.current_time() == 18


@in_virtual_time
async def test_so_does_one_of_which_only_so_many_go_on_at_once() -> None:
    app = Application(
        [service("web", depends_on={"db": "ready"}), service("db")],
        max_restarts_concurrently=2,
    )
    async with open_simulation(app, draining) as sim:
        await trio.sleep(10)
        await sim.controller.restart()
        assert again(sim.started, 2) == [(11, "db.0"), (13, "web.0")]


@in_virtual_time
async def test_one_that_was_done_and_is_gone_meanwhile_is_waited_for_no_more() -> None:
    """A reload has come and gone while the one before it was replaced."""
    job = service("job", count=2, restart="never")
    lives = script(
        {
            "job.0": [
                Life(ready_after=NEVER, exits_after=1),
                Life(ready_after=50, stopping_takes=5),
            ],
            "job.1": [Life(ready_after=NEVER, exits_after=1)],
        }
    )
    app = Application([job], max_restarts_concurrently=1)
    async with open_simulation(app, lives) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sim.controller.restart, "job")
            await trio.sleep(1)
            await sim.controller.reload(Application([service("web")]))
        assert sim.running == ["web.0/2"]
