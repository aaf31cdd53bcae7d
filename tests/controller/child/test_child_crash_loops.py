"""One service that crashes for ever: what happens to it, and to everybody else."""

from __future__ import annotations

import itertools

import pytest
import trio

from tests.kits.controller import (
    NEVER,
    Life,
    Lives,
    Part,
    open_simulation,
    script,
    service,
)
from trio_supervisor.application import Application, Group
from trio_supervisor.controller.events import (
    CrashLoopEnded,
    ProcessExited,
    ProcessStarted,
    ProcessStopping,
    WorkerReady,
)
from trio_supervisor.errors import ReloadError, UnavailableError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.restart import Backoff
from trio_supervisor.policy.strategy import STRATEGIES, Strategy
from trio_supervisor.testing import in_virtual_time

DEFAULT = Backoff()
CRASHES = Life(exits_after=0.5, returncode=3)
NEVER_READY = Life(ready_after=NEVER, exits_after=0.5, returncode=3)


def crashing(name: str, life: Life = CRASHES, until: int = 1_000_000) -> Lives:
    """Have *name* live *life* up to incarnation *until*, and the others for ever."""

    def lives(part: Part) -> Life:
        return (
            life if (part.service, part.incarnation < until) == (name, True) else Life()
        )

    return lives


@in_virtual_time
async def test_one_that_crashes_for_ever_stops_nobody() -> None:
    """An hour of it: it backs off to a minute, and the others run untouched."""
    app = Application([service("bad", backoff=DEFAULT), service("good", count=2)])
    async with open_simulation(app, crashing("bad")) as sim:
        await trio.sleep(3600)
        assert sim.states["good.0"] is sim.states["good.1"] is State.READY
        assert sorted(n for _, n in sim.started if n != "bad.0") == [
            "good.0",
            "good.1",
        ]
        starts = [moment for moment, name in sim.started if name == "bad.0"]
        pauses = [b - a for a, b in itertools.pairwise(starts)]
        assert pauses[0] == 0.5, "the first restart is immediate"
        assert max(pauses) <= 60.5
        assert 60 < len(starts) < 200


@in_virtual_time
async def test_a_crash_loop_is_logged_at_each_doubling_with_its_count() -> None:
    """All of it is an event; the log leaves the repeats out."""
    app = Application([service("bad", backoff=Backoff(base=1, cap=1))])
    async with open_simulation(app, crashing("bad")) as sim:
        await trio.sleep(150)
        exits = [e for _, e in sim.said if isinstance(e, ProcessExited)]
        told = [e.crashes for e in exits if not e.is_repeat]
        assert told[:8] == [1, 2, 3, 4, 5, 8, 16, 32]
        assert [e.crashes for e in exits] == list(range(1, len(exits) + 1))
        for kind in (ProcessStarted, WorkerReady):
            told_of = [
                not e.is_repeat
                for _, e in sim.said
                if isinstance(e, kind) and e.name == "bad.0"
            ]
            assert told_of[:6] == [True] * 6
            assert not any(told_of[6:])


@in_virtual_time
async def test_a_crash_loop_that_heals_is_over_once_it_ran_well() -> None:
    """The count goes, the log says so, and the next crash is told again."""
    app = Application([service("bad", backoff=DEFAULT)])
    async with open_simulation(app, crashing("bad", CRASHES, 9)) as sim:
        child = sim.child("bad.0")
        await child.wait_state(State.READY, since=9)
        ready_at = trio.current_time()
        assert child.crashes == 8
        while child.crashes:
            await child.wait_news()
        [(moment, words)] = sim.events(CrashLoopEnded)
        assert moment == ready_at + 10
        assert words.endswith(" after 8 crashes in a row; crash loop over")
        sim.process("bad.0").exit(3)
        await child.wait_state(State.READY, since=10)
        assert trio.current_time() == moment + 0.25, "restarted immediately"


@in_virtual_time
async def test_one_that_is_ready_and_hangs_backs_off_as_well() -> None:
    """Its health check ends it after 30 s without a heartbeat: it never was well."""
    app = Application(
        [service("bad", backoff=Backoff(base=100, cap=100), health_check_timeout=30.0)]
    )
    async with open_simulation(app, crashing("bad", Life())) as sim:
        child = sim.child("bad.0")
        await child.wait_state(State.BACKOFF, since=7)
        assert child.crashes == 7
        assert (
            child.trouble
            == "no heartbeat for 30 s (health_check_timeout), 7 times in a row"
        )
        assert sim.events(CrashLoopEnded) == []
        stops = [e for _, e in sim.said if isinstance(e, ProcessStopping)]
        assert [e.is_repeat for e in stops] == [False] * 6 + [True]


@in_virtual_time
async def test_start_and_restart_try_immediately_and_fail_with_the_reason() -> None:
    """No caller waits for ever; the worker is retried anyway."""
    slow = Backoff(base=0.25, cap=1000)
    app = Application([service("bad", backoff=slow), service("good")])
    async with open_simulation(app, crashing("bad", NEVER_READY)) as sim:
        child, controller = sim.child("bad.0"), sim.controller
        for verb in (controller.start, controller.restart):
            while not (child.state is State.BACKOFF and child.crashes >= 9):
                await child.wait_news()
            now, incarnation = trio.current_time(), child.incarnation
            with pytest.raises(UnavailableError) as caught:
                await verb("bad")
            assert str(caught.value) == "bad.0 did not become ready: exit code 3"
            assert [t for t, n in sim.started if n == "bad.0"][incarnation] == now
            assert child.crashes <= 2, "the backoff began again"
        with trio.fail_after(1):
            await controller.restart("good")


@in_virtual_time
async def test_one_in_a_crash_loop_keeps_no_other_from_its_restart() -> None:
    """It does not keep the only turn (max_restarts_concurrently) for ever."""
    app = Application(
        [service("bad", backoff=DEFAULT), service("good")], max_restarts_concurrently=1
    )
    async with open_simulation(app, crashing("bad", NEVER_READY)) as sim:
        with pytest.raises(UnavailableError):
            await sim.controller.restart("bad")
        with trio.fail_after(30):
            await sim.controller.restart("good")


@in_virtual_time
async def test_what_needs_one_in_a_crash_loop_waits_and_is_not_waited_for() -> None:
    """It says for what, until its need is ready."""
    app = Application(
        [service("bad", backoff=DEFAULT), service("web", depends_on={"bad": "ready"})]
    )
    lives = crashing("bad", NEVER_READY, 9)
    async with open_simulation(app, lives) as sim:
        child = sim.child("bad.0")
        await child.wait_state(State.BACKOFF, since=6)
        assert sim.child("web.0").waiting_for == "bad to be ready"
        with pytest.raises(
            UnavailableError, match=r"web\.0 is waiting for bad to be ready, but"
        ):
            await sim.controller.start("web")
        report = sim.controller.health("readiness")
        assert (report.is_ok, report.details["not_ready"]) == (False, ["bad", "web"])
        assert report.details["why"] == {
            "bad.0": "backoff, exit code 3, 6 times in a row",
            "web.0": "waiting for bad to be ready",
        }
        await sim.controller.wait_ready()
        assert sim.states["web.0"] is State.READY
        assert sim.controller.health("readiness").is_ok


@in_virtual_time
async def test_a_reload_fails_with_the_first_crash_of_the_new_generation() -> None:
    """It has no backoff to wait for; the old one goes on."""
    app = Application([service("web", backoff=DEFAULT)])

    def lives(part: Part) -> Life:
        return Life() if part.generation == 1 else NEVER_READY

    async with open_simulation(app, lives) as sim:
        await sim.controller.wait_ready()
        with pytest.raises(ReloadError, match=r"web\.0 of the new generation"):
            await sim.controller.reload(
                Application([service("web", backoff=DEFAULT), service("two")])
            )
        assert sim.states == {"web.0": State.READY}
        assert sim.child("web.0").incarnation == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_group_without_intensity_never_fails(strategy: Strategy) -> None:
    """Its members are restarted with the crashes, no faster than these back off."""

    @in_virtual_time
    async def play() -> None:
        group = Group(
            [service("bad", backoff=DEFAULT), service("web")],
            strategy=strategy,
        )
        async with open_simulation(
            Application([group, service("good")]),
            crashing("bad"),
        ) as sim:
            await trio.sleep(3600)
            assert sim.states["good.0"] is State.READY
            assert sim.child("good.0").incarnation == 1
            webs = sim.child("web.0").incarnation
            assert webs == 1 if strategy == "one_for_one" else 1 < webs < 200

    play()


@in_virtual_time
async def test_two_that_crash_with_each_other_do_not_crash_at_full_speed() -> None:
    """Each restart of the group would have reset the other's backoff."""
    group = Group(
        [service("a", backoff=DEFAULT), service("b", backoff=DEFAULT)],
        strategy="one_for_all",
    )
    async with open_simulation(Application([group]), lambda _: CRASHES) as sim:
        await trio.sleep(3600)
        assert len(sim.started) < 500


@in_virtual_time
async def test_readiness_does_not_flash_in_a_crash_loop() -> None:
    """One that is ready once started, and exits again, is at no time ready."""
    lives = script({"a.0": [Life(exits_after=10.0)] + [Life(exits_after=1.5)] * 999})
    app = Application([service("a", stable_for=2.0, backoff=Backoff())])
    async with open_simulation(app, lives) as sim:
        await trio.sleep(5)
        assert sim.controller.health("readiness").is_ok
        await trio.sleep(6)
        states = set()
        for _ in range(200):
            await trio.sleep(0.25)
            states.add(sim.child("a.0").state)
            assert not sim.controller.health("readiness").is_ok
        assert State.READY in states
