"""A worker counts as up only after it has been up for a moment, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.kits.controller import (
    NEVER,
    Life,
    Part,
    Simulation,
    open_simulation,
    service,
)
from trio_supervisor.application import Application, Command
from trio_supervisor.controller.events import AllWorkersReady, WorkerReady
from trio_supervisor.errors import ReloadError, UnavailableError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.restart import Backoff
from trio_supervisor.testing import in_virtual_time


def command(name: str, **fields: Any) -> Command:
    """Return a command that nothing says is ready; a crash is repaired after 10 s."""
    quiet = {"backoff": Backoff(base=10, cap=10), "intensity": None}
    return Command(name, [name], **(quiet | fields))


def dies(after: float, since: int = 1, returncode: int = 3) -> Any:
    """Return lives in which workers from that incarnation on exit."""

    def life(part: Part) -> Life:
        is_bad = part.incarnation >= since
        return Life(exits_after=after if is_bad else NEVER, returncode=returncode)

    return life


async def _stop(sim: Simulation, name: str) -> None:
    with trio.fail_after(100):
        await sim.controller.stop(name)


@in_virtual_time
async def test_all_ready_waits_until_a_command_has_lived_for_a_moment() -> None:
    async with open_simulation(Application([command("a")])) as sim:
        await sim.controller.wait_ready()
        assert trio.current_time() == 1
        assert sim.events(WorkerReady) == [
            (0, sim.events(WorkerReady)[0][1]),  # the supervisor
            (1, sim.events(WorkerReady)[1][1]),
        ]
        assert "a.0: ready in 1000 ms" in sim.events(WorkerReady)[1][1]
        ((when, words),) = sim.events(AllWorkersReady)
        assert (when, words) == (1, "controller: all 1 workers ready after 1000 ms")


@pytest.mark.parametrize("returncode", [0, 3])
@in_virtual_time
async def test_a_command_that_exits_at_once_is_never_said_to_be_ready(
    returncode: int,
) -> None:
    """For any number of starts and any exit code."""
    lives = dies(0.5, returncode=returncode)
    async with open_simulation(Application([command("a")]), lives) as sim:
        await trio.sleep(200)
        assert sim.child("a.0").restarts > 10
        assert sim.events(AllWorkersReady) == []
        assert not [words for _, words in sim.events(WorkerReady) if "a.0" in words]


@in_virtual_time
async def test_jobs_and_what_is_stopped_are_not_counted_as_ready() -> None:
    """They are named, each with the reason."""
    job = command("job", restart="on-failure", depends_on={"a": "ready"})
    application = Application([command("a"), job, command("off")])

    def lives(part: Part) -> Life:
        return Life(exits_after=0.5 if part.service == "job" else NEVER)

    async with open_simulation(application, lives) as sim:
        sim.child("off.0").request_stop()
        await sim.controller.wait_ready()
        ((_, words),) = sim.events(AllWorkersReady)
        assert (
            words.partition("; ")[2] == "job.0 (finished, exit code 0), off.0 (stopped)"
        )
        assert words.startswith("controller: 1 workers ready after 1000 ms")


@in_virtual_time
async def test_dependents_and_crash_restarts_do_not_wait_for_it() -> None:
    needy = command("b", depends_on={"a": "ready"})
    application = Application([command("a", backoff=None), needy])

    def lives(part: Part) -> Life:
        is_first = part == Part("a", 0, 1, 1)
        return Life(exits_after=5 if is_first else NEVER)

    async with open_simulation(application, lives) as sim:
        await trio.sleep(6)
        assert sim.started == [(0, "a.0"), (0, "b.0"), (5, "a.0")]
        assert sim.child("a.0").state is State.READY


@in_virtual_time
async def test_start_returns_when_it_has_lived_for_stable_for() -> None:
    application = Application([command("a", stable_for=7)])
    async with open_simulation(application) as sim:
        await _stop(sim, "a")
        began = trio.current_time()
        await sim.controller.start("a")
        assert trio.current_time() - began == 7


@in_virtual_time
async def test_a_start_that_fails_is_undone() -> None:
    """With what it had started for it, and nothing else."""
    application = Application(
        [command("other"), command("db"), command("a", depends_on={"db": "ready"})]
    )

    def lives(part: Part) -> Life:
        is_bad = part.service == "a" and part.incarnation > 1
        return Life(exits_after=0.5 if is_bad else NEVER, returncode=3)

    async with open_simulation(application, lives) as sim:
        await _stop(sim, "db")
        began = trio.current_time()
        with pytest.raises(UnavailableError) as caught:
            await sim.controller.start("a")
        assert trio.current_time() - began == 0.5
        assert str(caught.value) == (
            "a.0 did not stay up for 1 s (stable_for): exit code 3; "
            "stopped again: db.0, a.0"
        )
        await sim.settle()
        assert sim.running == ["other.0"]


@in_virtual_time
async def test_a_service_that_exits_before_it_is_ready_fails_its_start() -> None:
    """It is not waited for until one of its restarts succeeds."""

    def lives(part: Part) -> Life:
        return Life(exits_after=0.1 if part.incarnation == 2 else NEVER, returncode=3)

    async with open_simulation(Application([service("web")]), lives) as sim:
        await _stop(sim, "web")
        with pytest.raises(UnavailableError, match="did not become ready: exit code 3"):
            await sim.controller.start("web")
        assert sim.states == {"web.0": State.STOPPED}


@in_virtual_time
async def test_scaling_to_what_does_not_stay_up_is_undone() -> None:
    application = Application([command("a"), command("b", count=3)])

    def lives(part: Part) -> Life:
        is_bad = part.service == "a" and part.index == 2
        return Life(exits_after=0.5 if is_bad else NEVER, returncode=3)

    async with open_simulation(application, lives) as sim:
        await sim.controller.wait_ready()
        with pytest.raises(UnavailableError, match=r"; scaled back to a=1, b=3$"):
            await sim.controller.scale({"a": 3, "b": 1})
        assert list(sim.states) == ["a.0", "b.0", "b.1", "b.2"]
        assert sim.controller.reloader.scaled == {}
        assert sim.started.count((0, "a.0")) == 1  # not touched


@in_virtual_time
async def test_a_restart_fails_where_the_new_one_exits_at_once() -> None:
    """It goes on to be restarted as its policy says."""
    async with open_simulation(Application([command("a")]), dies(0.5, 2)) as sim:
        await sim.controller.wait_ready()
        with pytest.raises(UnavailableError, match="did not stay up for 1 s"):
            await sim.controller.restart("a")
        assert sim.child("a.0").is_wanted


@in_virtual_time
async def test_a_rolling_restart_goes_no_further_than_what_does_not_stay_up() -> None:
    application = Application([command("a", count=3)])
    async with open_simulation(application, dies(0.5, 2)) as sim:
        await sim.controller.wait_ready()
        with pytest.raises(UnavailableError, match=r"a\.0 did not stay up"):
            await sim.controller.restart("a", rolling=True)
        await sim.settle()
        assert sim.child("a.1").incarnation == 1
        assert sim.child("a.2").incarnation == 1


@pytest.mark.parametrize("overlap", [True, False])
@in_virtual_time
async def test_a_reload_to_what_does_not_stay_up_is_rolled_back(overlap: bool) -> None:
    application = Application([command("a", overlap=overlap)])
    changed = Application([command("a", overlap=overlap, environment={"A": "1"})])

    def lives(part: Part) -> Life:
        is_bad = part.generation == 2
        return Life(exits_after=0.5 if is_bad else NEVER, returncode=3)

    async with open_simulation(application, lives) as sim:
        await sim.controller.wait_ready()
        with pytest.raises(
            ReloadError, match=r"did not stay up for 1 s \(stable_for\)"
        ):
            await sim.controller.reload(changed)
        assert sim.controller.generation.number == 1
        assert sim.running == ["a.0"]


@in_virtual_time
async def test_a_reload_takes_over_when_the_new_ones_have_lived_for_a_moment() -> None:
    """Those that depend on them are started before that."""

    def application(**fields: Any) -> Application:
        needy = command("b", depends_on={"a": "ready"}, overlap=True, **fields)
        return Application([command("a", overlap=True, **fields), needy])

    async with open_simulation(application()) as sim:
        await trio.sleep(10)
        await sim.controller.reload(application(environment={"A": "1"}))
        assert sim.started[2:] == [(10, "a.0/2"), (10, "b.0/2")]
        assert sorted(sim.ended)[:2] == [(11, "a.0"), (11, "b.0")]


@pytest.mark.parametrize("verb", ["start", "restart"])
@in_virtual_time
async def test_a_service_without_workers_is_said_to_have_none(verb: str) -> None:
    async with open_simulation(Application([command("a", count=0)])) as sim:
        with pytest.raises(UnavailableError, match=rf"a has no workers to {verb} "):
            await getattr(sim.controller, verb)("a")


@in_virtual_time
async def test_stable_for_of_a_service_counts_from_its_readiness() -> None:
    application = Application([service("web", stable_for=3)])
    async with open_simulation(application) as sim:
        await sim.controller.wait_ready()
        assert trio.current_time() == 3.25
        assert any(when == 0.25 for when, _ in sim.events(WorkerReady))
