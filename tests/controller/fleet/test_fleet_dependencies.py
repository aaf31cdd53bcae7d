"""Who waits for whom, in virtual time: at the start, at restarts, at stops."""

from __future__ import annotations

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
from trio_supervisor.application import Application
from trio_supervisor.controller.events import ProcessStopping
from trio_supervisor.errors import UnavailableError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.restart import Backoff
from trio_supervisor.testing import in_virtual_time

CHAIN = Application(
    [
        service("web", depends_on={"db": "ready"}),
        service("db", depends_on={"migrate": "exited_ok"}),
        service("migrate", restart="on-failure"),
        service("log", depends_on={"migrate": "started"}),
    ]
)
DONE = Life(ready_after=NEVER, exits_after=2.0)


@in_virtual_time
async def test_each_begins_when_what_it_needs_is_there() -> None:
    """`started` at once, `exited_ok` at 2 s, `ready` a quarter of a second later."""
    async with open_simulation(CHAIN, script({"migrate.0": [DONE]})) as sim:
        assert sim.child("web.0").waiting_for == "db to be ready"
        assert sim.child("db.0").waiting_for == "migrate to exit with success"
        await sim.controller.wait_ready()
        assert sim.started == [
            (0, "migrate.0"),
            (0, "log.0"),
            (2, "db.0"),
            (2.25, "web.0"),
        ]
        assert sim.child("web.0").waiting_for == ""
        await sim.check_picture()


@in_virtual_time
async def test_what_could_never_be_started_was_not() -> None:
    """All attempts were in vain; what needs it started goes on waiting."""
    services = [
        service("probe", restart="never"),
        service("web", depends_on={"probe": "started"}),
    ]
    lives = script({"probe.0": [Life(can_spawn=False)]})
    async with open_simulation(Application(services), lives) as sim:
        await sim.settle()
        assert sim.states == {"probe.0": State.FAILED, "web.0": State.WAITING}
        assert sim.child("web.0").waiting_for == "probe to start"
        assert sim.started == []


@in_virtual_time
async def test_one_that_waits_can_be_stopped_and_started() -> None:
    """It never had a process; and a start waits again."""
    async with open_simulation(CHAIN, script({"migrate.0": [DONE]})) as sim:
        web = sim.child("web.0")
        assert web.state is State.WAITING
        assert await sim.controller.stop("web") == ("web.0",)
        assert (web.state, web.incarnation) == (State.STOPPED, 0)
        await trio.sleep(1)
        await sim.controller.start("web")
        assert trio.current_time() == 2.5
        assert sim.started[-1] == (2.25, "web.0")


@in_virtual_time
async def test_a_restart_waits_for_what_is_not_there_at_the_moment() -> None:
    """The dependency crashed and is slow; who runs goes on, who ends waits."""
    app = Application(
        [service("db"), service("web", count=2, depends_on={"db": "ready"})]
    )
    lives = script(
        {"db.0": [Life(exits_after=10.0, returncode=1), Life(ready_after=5)]}
    )
    async with open_simulation(app, lives) as sim:
        await trio.sleep(11)
        assert sim.states == {
            "db.0": State.STARTING,
            "web.0": State.READY,
            "web.1": State.READY,
        }
        sim.process("web.0").exit(1)
        await wait_all_tasks_blocked()
        assert sim.child("web.0").state is State.WAITING
        assert sim.child("web.0").waiting_for == "db to be ready"
        await trio.sleep(5)
        assert sim.started[-1] == (15, "web.0")
        assert sim.child("web.1").incarnation == 1
        await sim.check_picture()


@in_virtual_time
async def test_a_dependency_that_is_unready_holds_up_what_starts() -> None:
    app = Application([service("db"), service("web", depends_on={"db": "ready"})])
    life = Life(unready_after=5, ready_again_after=5)
    async with open_simulation(app, script({"db.0": [life]})) as sim:
        await trio.sleep(6)
        assert sim.states == {"db.0": State.UNREADY, "web.0": State.READY}
        sim.child("web.0").request_restart()
        await wait_all_tasks_blocked()
        assert sim.child("web.0").state is State.WAITING
        await trio.sleep(10)
        assert sim.started[-1] == (10.25, "web.0")


@in_virtual_time
async def test_a_stop_takes_with_it_what_needs_it_and_a_start_what_it_needs() -> None:
    """In order, each when the one before is gone; a done job is not run again."""
    lives = script(
        {"migrate.0": [DONE], "web.0": [Life(stopping_takes=3)], "db.0": [Life()]}
    )
    async with open_simulation(CHAIN, lives) as sim:
        await sim.controller.wait_ready()
        assert await sim.controller.stop("db") == ("web.0", "db.0")
        assert sim.ended == [(2, "migrate.0"), (5.5, "web.0"), (5.5, "db.0")]
        assert sim.running == ["log.0"]
        await sim.controller.start("web")
        assert sim.started[-2:] == [(5.5, "db.0"), (5.75, "web.0")]
        assert sim.child("migrate.0").incarnation == 1


@in_virtual_time
async def test_a_stop_of_a_service_and_a_worker_of_another_names_each_once() -> None:
    app = Application(
        [service("db"), service("web", count=2, depends_on={"db": "ready"})]
    )
    async with open_simulation(app) as sim:
        await sim.controller.wait_ready()
        stopped = await sim.controller.stop("web.0", "db")
        assert stopped == ("web.0", "web.1", "db.0")


@in_virtual_time
async def test_a_start_starts_a_failed_dependency_again() -> None:
    """Else it would wait for it for ever."""
    app = Application(
        [
            service("db", restart="never"),
            service("web", depends_on={"db": "ready"}),
        ]
    )
    lives = script({"db.0": [Life(exits_after=0.0, returncode=1)]})
    async with open_simulation(app, lives) as sim:
        await trio.sleep(1)
        assert sim.states == {"db.0": State.FAILED, "web.0": State.WAITING}
        await sim.controller.stop("web")
        with trio.fail_after(10):
            await sim.controller.start("web")
        assert sim.states == {"db.0": State.READY, "web.0": State.READY}


JOB = Application(
    [
        service(
            "migrate",
            restart="on-failure",
            give_up_on=[3],
            backoff=Backoff(base=1e9, cap=1e9),
        ),
        service("web", depends_on={"migrate": "exited_ok"}),
    ]
)


@pytest.mark.parametrize(
    ("returncode", "state"), [(1, State.BACKOFF), (3, State.FAILED)]
)
@in_virtual_time
async def test_a_job_that_was_stopped_by_hand_is_not_done(
    returncode: int, state: State
) -> None:
    """Regardless of its last exit before it was stopped."""
    crash = Life(exits_after=0.5, returncode=returncode, ready_after=NEVER)
    lives = script({"migrate.0": [crash, crash]})
    async with open_simulation(JOB, lives) as sim:
        await trio.sleep(2)
        assert sim.child("migrate.0").state is state
        await sim.controller.stop("migrate")
        await sim.settle()
        assert sim.states == {"migrate.0": State.STOPPED, "web.0": State.WAITING}


@in_virtual_time
async def test_a_job_that_failed_keeps_waiting_what_needs_it() -> None:
    """Until it is run again, and succeeds."""
    lives = script({"migrate.0": [Life(exits_after=1.0, returncode=3), DONE]})
    async with open_simulation(JOB, lives) as sim:
        await sim.settle()
        assert sim.states == {"migrate.0": State.FAILED, "web.0": State.WAITING}
        await sim.controller.start("migrate")
        await sim.controller.wait_ready()
        assert sim.states == {"migrate.0": State.STOPPED, "web.0": State.READY}


@in_virtual_time
async def test_what_is_started_while_a_stop_is_on_its_way_is_stopped_too() -> None:
    """Else it would run without what it needs."""
    services = [
        service("db"),
        service("web", depends_on={"db": "ready"}),
        service("report", depends_on={"db": "started"}),
    ]
    lives = script({"web.0": [Life(stopping_takes=2.0)]})
    async with open_simulation(Application(services), lives) as sim:
        await sim.controller.wait_ready()
        stopped: list[str] = []

        async def stop() -> None:
            stopped.extend(await sim.controller.stop("db"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            await trio.sleep(1)
            await sim.controller.scale({"report": 2})
        assert stopped == ["report.0", "web.0", "report.1", "db.0"]
        assert set(sim.states.values()) == {State.STOPPED}


@in_virtual_time
async def test_what_is_scaled_away_while_a_stop_is_on_its_way_stays_forgotten() -> None:
    """The stop comes to it last, when nobody has been told of it for a while."""
    services = [service("db"), service("web", depends_on={"db": "ready"})]
    slow = Life(stopping_takes=2.0)
    lives = script({"web.0": [slow]})
    async with open_simulation(Application(services), lives) as sim:
        await sim.controller.wait_ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sim.controller.stop, "db")
            await wait_all_tasks_blocked()
            await sim.controller.scale({"db": 0})
        assert sim.states == {"web.0": State.STOPPED}
        await sim.check_picture()


@in_virtual_time
async def test_a_stopped_worker_that_is_scaled_away_is_not_waited_for() -> None:
    app = Application(
        [service("db", count=2), service("web", depends_on={"db": "ready"})]
    )
    async with open_simulation(app, script({"db.1": [Life(ready_after=NEVER)]})) as sim:
        await trio.sleep(1)
        sim.child("db.1").request_stop()
        await trio.sleep(1)
        assert sim.child("web.0").state is State.WAITING
        await sim.controller.scale({"db": 1})
        await trio.sleep(1)
        assert sim.child("web.0").state is State.READY


@in_virtual_time
async def test_a_restart_of_all_runs_no_job_again_that_is_done() -> None:
    """Not a migration; what was stopped by hand is started, as elsewhere."""
    app = Application([*JOB.services, service("log")])
    async with open_simulation(app, script({"migrate.0": [DONE]})) as sim:
        await sim.controller.wait_ready()
        await sim.controller.stop("log")
        await sim.controller.restart()
        assert [c.incarnation for c in sim.controller.generation.children] == [
            1,
            2,
            2,
        ]


@in_virtual_time
async def test_a_job_can_be_run_again() -> None:
    """Its success is what a restart of it waits for."""
    async with open_simulation(JOB, script({"migrate.0": [DONE, DONE]})) as sim:
        await sim.controller.wait_ready()
        began = trio.current_time()
        await sim.controller.restart("migrate")
        assert trio.current_time() == began + 2
        assert sim.child("migrate.0").state is State.STOPPED


@in_virtual_time
async def test_everything_is_stopped_before_what_it_needs() -> None:
    """However long each takes; the theatre looks at each stop as well."""
    lives = script({"migrate.0": [DONE], "web.0": [Life(stopping_takes=3)]})
    async with open_simulation(CHAIN, lives) as sim:
        await sim.controller.wait_ready()
        began = trio.current_time()
        sim.controller.shutdown("the end")
        await sim.is_over.wait()
        assert sim.ended[1:] == [
            (began, "log.0"),
            (began + 3, "web.0"),
            (began + 3, "db.0"),
        ]
        assert [words for _, words in sim.events(ProcessStopping)][:3] != []


@in_virtual_time
async def test_a_second_stop_waits_for_what_the_first_has_begun() -> None:
    """Who is impatient and asks again does not turn the order round."""
    app = Application([service("db"), service("web", depends_on={"db": "ready"})])
    lives = script({"web.0": [Life(stopping_takes=5)]})
    async with open_simulation(app, lives) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sim.controller.stop, "db")
            await trio.sleep(1)
            nursery.start_soon(sim.controller.stop, "db")
        assert sim.ended == [(15, "web.0"), (15, "db.0")]


@in_virtual_time
async def test_a_stop_that_a_start_has_overtaken_is_over() -> None:
    """No worker waits for the exit of one that is to run again."""
    app = Application([service("web")])
    async with open_simulation(app, script({"web.0": [Life(stopping_takes=5)]})) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = 100
            nursery.start_soon(sim.controller.stop, "web")
            await trio.sleep(1)
            await sim.controller.start("web")
        assert trio.current_time() == 15.25
        assert sim.states == {"web.0": State.READY}


@in_virtual_time
async def test_a_start_that_a_stop_has_overtaken_is_over() -> None:
    """Even in the very instant, where nothing has been started yet."""
    async with open_simulation(Application([service("web")])) as sim:
        await trio.sleep(10)
        await sim.controller.stop("web")
        async with trio.open_nursery() as nursery:

            async def start() -> None:
                with pytest.raises(UnavailableError, match=r"web\.0 is not ready"):
                    await sim.controller.start("web")

            nursery.cancel_scope.deadline = 100
            nursery.start_soon(start)
            nursery.start_soon(stop_at_once, sim)
        assert trio.current_time() == 10
        assert sim.states == {"web.0": State.STOPPED}


async def stop_at_once(sim: Simulation) -> None:
    """Stop the worker of web as soon as it is wanted."""
    web = sim.child("web.0")
    while not web.is_wanted:
        await trio.lowlevel.checkpoint()
    web.request_stop()


@in_virtual_time
async def test_the_last_worker_of_a_service_is_the_service() -> None:
    """Stopped one by one, the last one takes with it what needs them."""
    app = Application(
        [service("db", count=2), service("web", depends_on={"db": "ready"})]
    )
    async with open_simulation(app) as sim:
        await sim.controller.wait_ready()
        assert await sim.controller.stop("db.0") == ("db.0",)
        assert sim.running == ["db.1", "web.0"]
        assert await sim.controller.stop("db.1") == ("web.0", "db.1")


@in_virtual_time
async def test_nothing_is_started_by_what_was_just_asked_to_stop() -> None:
    """It runs, and does so no more when the other one would."""
    app = Application([service("db"), service("web", depends_on={"db": "started"})])
    async with open_simulation(app) as sim:
        await sim.controller.wait_ready()
        await sim.controller.stop("web")
        sim.child("db.0").request_stop()
        sim.child("web.0").request_start()
        await trio.sleep(1)
        assert sim.running == []
        assert sim.child("web.0").waiting_for == "db to start"
