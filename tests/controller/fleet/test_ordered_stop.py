"""What stops beside what, and how long everything may take, in virtual time."""

from __future__ import annotations

import pytest
import trio

from tests.kits.controller import (
    Life,
    Simulation,
    open_simulation,
    service,
)
from trio_supervisor.application import Application, Command, Group
from trio_supervisor.controller.events import (
    ProcessExited,
    ProcessStopping,
    ShutdownTimedOut,
)
from trio_supervisor.errors import SignalNotPermittedError
from trio_supervisor.testing import in_virtual_time, simulated

SLOW = Life(stopping_takes=2.0)
STUBBORN = Life(is_stubborn=True)


async def shut_down(sim: Simulation) -> float:
    """Shut everything down; return how long that took [s]."""
    began = trio.current_time()
    sim.controller.shutdown()
    await sim.is_over.wait()
    return trio.current_time() - began


def ended_after(sim: Simulation, began: float) -> dict[str, float]:
    return {name: moment - began for moment, name in sim.ended}


@in_virtual_time
async def test_shutdown_stops_independent_services_side_by_side() -> None:
    app = Application([service(name, count=2) for name in "abcdef"])
    async with open_simulation(app, lambda _: SLOW) as sim:
        await trio.sleep(10)
        assert await shut_down(sim) == 2
        asked = [e.name for _, e in sim.said if isinstance(e, ProcessStopping)]
        assert asked[-1] == "supervisor"
        assert len(asked) == 13


@in_virtual_time
async def test_shutdown_stops_a_service_once_its_own_dependents_have_ended() -> None:
    """It does not wait for others, which take longer."""
    app = Application(
        [
            service("db"),
            service("web", depends_on={"db": "ready"}),
            service("slow"),
            service("proxy", depends_on={"web": "started"}),
        ]
    )

    def lives(part: object) -> Life:
        return Life(stopping_takes=30.0 if "slow" in str(part) else 2.0)

    async with open_simulation(app, lives) as sim:
        await trio.sleep(10)
        assert await shut_down(sim) == 10  # the stop_timeout of `slow`
        assert ended_after(sim, 10) == {
            "proxy.0": 2,
            "web.0": 4,
            "db.0": 6,
            "slow.0": 10,
        }


@in_virtual_time
async def test_shutdown_follows_the_order_that_rest_for_one_adds() -> None:
    group = Group([service(n) for n in "ab"], strategy="rest_for_one")
    app = Application([group, service("other")])
    async with open_simulation(app, lambda _: SLOW) as sim:
        await trio.sleep(10)
        assert await shut_down(sim) == 4
        assert ended_after(sim, 10) == {"other.0": 2, "b.0": 2, "a.0": 4}


@in_virtual_time
async def test_stop_ends_several_services_side_by_side() -> None:
    app = Application([service(n) for n in "abc"])
    async with open_simulation(app, lambda _: SLOW) as sim:
        await trio.sleep(10)
        stopped = await sim.controller.stop("a", "b", "c")
        assert stopped == ("c.0", "b.0", "a.0")
        assert trio.current_time() == 12


@in_virtual_time
async def test_stop_names_a_dependent_that_may_not_be_stopped() -> None:
    """Nothing but what depends on it was asked to stop."""
    db = Command("db", ["db"])
    web = Command("web", ["web"], depends_on={"db": "started"})
    async with simulated(Application([db, web])) as simulation:
        await simulation.controller.wait_ready()
        process = simulation.process("web.0")
        assert process is not None
        process.user = "another"
        with pytest.raises(SignalNotPermittedError, match=r"web\.0"):
            await simulation.controller.stop("db")
        process.exit(0)  # it was left running


@in_virtual_time
async def test_reload_stops_the_old_generation_side_by_side() -> None:
    app = Application([service(n) for n in "abc"])
    async with open_simulation(app, lambda _: SLOW) as sim:
        await trio.sleep(10)
        await sim.controller.reload(Application([service(n) for n in "abc"]))
        assert trio.current_time() == 12.25


@in_virtual_time
async def test_shutdown_during_a_reload_stops_both_generations_side_by_side() -> None:
    """The new one waits for a worker that is never ready."""
    needs = {"db": "ready"}
    old = Application([service("db"), service("web", depends_on=needs)])
    new = Application([service("db"), service("web", depends_on=needs)])

    def lives(part: object) -> Life:
        is_late = "generation=2" in str(part) and "web" in str(part)
        return Life(stopping_takes=2.0, ready_after=1e6 if is_late else 0.25)

    async with open_simulation(old, lives) as sim:
        await trio.sleep(10)
        sim.nursery.start_soon(_reload_in_vain, sim, new)
        await trio.sleep(5)
        assert sim.running == ["db.0", "db.0/2", "web.0", "web.0/2"]
        assert await shut_down(sim) == 4
        ended = ended_after(sim, 15)
        assert ended == {"web.0": 2, "web.0/2": 2, "db.0": 4, "db.0/2": 4}


async def _reload_in_vain(sim: Simulation, new: Application) -> None:
    with pytest.raises(Exception, match="the controller is shutting down"):
        await sim.controller.reload(new)


@in_virtual_time
async def test_shutdown_while_the_old_generation_stops_waits_for_it() -> None:
    needs = {"db": "ready"}
    old = Application([service("db"), service("web", depends_on=needs)])
    new = Application([service("db"), service("web", depends_on=needs)])

    async with open_simulation(old, lambda _: SLOW) as sim:
        await trio.sleep(10)
        sim.nursery.start_soon(sim.controller.reload, new)
        await trio.sleep(1.5)
        assert sim.running == ["db.0", "db.0/2", "web.0", "web.0/2"]
        sim.controller.shutdown()
        await sim.is_over.wait()
        ended = ended_after(sim, 10)
        # The old web began to stop at 0.5 s; each db waits for both, for by its name it
        # is the same service.
        assert ended == {"web.0": 2.5, "web.0/2": 3.5, "db.0": 4.5, "db.0/2": 5.5}


@in_virtual_time
async def test_stop_timeout_kills_what_is_left_in_order() -> None:
    """A second before it is over, so that all has ended within it."""
    app = Application(
        [
            service("db", stop_timeout=100),
            service("web", stop_timeout=100, depends_on={"db": "ready"}),
            service("polite"),
        ],
        stop_timeout=10,
    )

    def lives(part: object) -> Life:
        return SLOW if "polite" in str(part) else STUBBORN

    async with open_simulation(app, lives) as sim:
        await trio.sleep(10)
        assert await shut_down(sim) == 9
        assert ended_after(sim, 10) == {"polite.0": 2, "web.0": 9, "db.0": 9}
        names = [e.name for _, e in sim.said if isinstance(e, ProcessExited)]
        assert names == ["polite.0", "web.0", "db.0", "supervisor"]
        [(moment, _)] = sim.events(ShutdownTimedOut)
        assert moment == 19


@in_virtual_time
async def test_stop_timeout_says_nothing_where_all_stop_in_time() -> None:
    app = Application([service("a")], stop_timeout=10)
    async with open_simulation(app, lambda _: SLOW) as sim:
        await trio.sleep(10)
        assert await shut_down(sim) == 2
        assert sim.events(ShutdownTimedOut) == []


@in_virtual_time
async def test_stop_timeout_is_for_a_shutdown_and_not_for_a_stop() -> None:
    app = Application([service("a", stop_timeout=30)], stop_timeout=10)
    async with open_simulation(app, lambda _: STUBBORN) as sim:
        await trio.sleep(10)
        await sim.controller.stop("a")
        assert trio.current_time() == 40


@in_virtual_time
async def test_hurry_kills_all_that_is_left_at_once() -> None:
    app = Application(
        [service("db"), service("web", depends_on={"db": "ready"}), service("a")]
    )
    async with open_simulation(app, lambda _: STUBBORN) as sim:
        await trio.sleep(10)
        sim.controller.shutdown()
        await trio.sleep(1)
        sim.controller.hurry()
        await sim.is_over.wait()
        assert trio.current_time() == 11


def test_a_stop_timeout_that_cannot_suffice_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Application(
        [service("db"), service("web", depends_on={"db": "ready"})], stop_timeout=15
    )

    @in_virtual_time
    async def run() -> None:
        async with open_simulation(app):
            await trio.sleep(1)

    run()
    assert "stopping can take 20 s (web 10 s, then db 10 s)" in caplog.text
