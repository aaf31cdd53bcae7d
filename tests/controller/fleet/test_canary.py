"""Test that a canary lets a reload continue or rolls it back, in virtual time."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import trio

from tests.kits.controller import (
    NEVER,
    Life,
    Simulation,
    open_simulation,
    script,
    service,
)
from trio_supervisor.application import Application, Command
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.controller import core_of
from trio_supervisor.controller.events import (
    CanaryFailed,
    CanaryPassed,
    CanaryStarted,
    GroupFailed,
    ReloadFailed,
    ReloadFinished,
)
from trio_supervisor.controller.metrics import MetricsBank
from trio_supervisor.errors import (
    SpecError,
    SupervisorError,
    UnavailableError,
)
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.restart import Cause
from trio_supervisor.testing import in_virtual_time

CRASH = Life(exits_after=5, returncode=1)
MIB = 1024 * 1024


def app(**web: Any) -> Application:
    return Application([service("web", **({"count": 3} | web))])


def changed(**web: Any) -> Application:
    return app(stop_timeout=9, **web)


async def reload(
    sim: Simulation, application: Application, canary: Any = 1, **options: Any
) -> tuple[str, ...]:
    plan = await sim.controller.reload(application, canary=canary, **options)
    return plan.canaries


async def fail(sim: Simulation, match: str, **options: Any) -> None:
    """See that a reload is rolled back, and that the old workers did not notice."""
    before, generation = sim.running, sim.controller.generation
    ended = len(sim.ended)
    options = {"application": changed(), **options}
    with pytest.raises(SupervisorError, match=match), trio.fail_after(600):
        await reload(sim, **options)
    assert sim.running == before
    assert sim.controller.generation is generation
    assert all("/2" in name for _, name in sim.ended[ended:])
    assert len(sim.events(ReloadFailed)) == 1
    sim.controller.reloader.check_idle()
    await sim.check_picture()


def observed(sim: Simulation) -> dict[str, int]:
    """Return the generations of the workers that the supervisor shows as canaries."""
    records = sim.servers[-1].registry.all_records.values()
    return {each.name: each.generation for each in records if each.canary is not None}


# It passes.


@in_virtual_time
async def test_good_canary_is_followed_by_the_others() -> None:
    async with open_simulation(app()) as sim:
        await trio.sleep(10)
        assert await reload(sim, changed()) == ("web.2",)
        started = [(time, name) for time, name in sim.started if "/2" in name]
        # Each is ready after 0.25 s; the observation begins then.
        assert started[0] == (10, "web.2/2")
        assert sorted(started[1:]) == [(70.25, "web.0/2"), (70.25, "web.1/2")]
        assert {time for time, _ in sim.ended} == {70.5}
        assert sim.running == ["web.0/2", "web.1/2", "web.2/2"]
        assert sim.events(CanaryStarted, CanaryPassed) == [
            (
                10.25,
                "controller: canary of generation 2 is ready: web.2; comparing with "
                "generation 1 for 60 s",
            ),
            (
                70.25,
                "controller: canary of generation 2 passed: web.2; reload continues",
            ),
        ]
        assert len(sim.events(ReloadFinished)) == 1
        await sim.check_picture()


@in_virtual_time
async def test_status_shows_only_the_workers_that_run() -> None:
    async with open_simulation(app()) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reload, sim, changed(), 2)
            await trio.sleep(30)
            assert sim.running == ["web.0", "web.1", "web.1/2", "web.2", "web.2/2"]
            assert len(shown(sim)) == 5
            assert observed(sim) == {"web.1": 2, "web.2": 2}
            assert not any(record.counts for record in shown(sim) if record.canary)
        await sim.check_picture()
        assert observed(sim) == {}


def shown(sim: Simulation) -> list[Any]:
    return list(sim.servers[-1].registry.all_records.values())


@in_virtual_time
async def test_canary_has_its_own_length() -> None:
    async with open_simulation(app()) as sim:
        await trio.sleep(10)
        await reload(sim, changed(), canary_for=5)
        assert sim.events(CanaryPassed)[0][0] == 15.25


@in_virtual_time
async def test_more_canaries_than_workers_are_all_of_them() -> None:
    after = Application([service("web", count=2, stop_timeout=9), service("jobs")])
    before = Application([service("web", count=3), service("jobs")])
    async with open_simulation(before) as sim:
        await trio.sleep(10)
        assert await reload(sim, after, 5) == ("web.0", "web.1", "jobs.0")
        assert sim.running == ["jobs.0/2", "web.0/2", "web.1/2"]


@in_virtual_time
async def test_services_come_and_go_when_the_canary_has_passed() -> None:
    before = Application([service("web", count=2), service("old")])
    after = Application([service("web", count=2), service("new")])
    async with open_simulation(before) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reload, sim, after)
            await trio.sleep(30)
            assert sim.running == ["old.0", "web.0", "web.1", "web.1/2"]
        assert sim.running == ["new.0/2", "web.0/2", "web.1/2"]


@in_virtual_time
async def test_canary_has_what_it_needs() -> None:
    """New services and jobs are started for it; for others the old ones stand."""

    def both(version: int, *more: Any, **needs: str) -> Application:
        return Application(
            [
                service("job", restart="never", state={"v": version}),
                service("alone", overlap=False, state={"v": version}),
                Command("redis", ["redis"], notify=True, backoff=None),
                service("db", count=2, state={"v": version}),
                *more,
                service(
                    "web",
                    count=2,
                    depends_on={
                        "job": "exited_ok",
                        "alone": "ready",
                        "redis": "ready",
                        "db": "ready",
                        **needs,
                    },
                ),
                service("last", depends_on={"web": "ready"}, restart="never"),
            ]
        )

    done = Life(ready_after=NEVER, exits_after=1)
    lives = script(
        {name: [done] for name in ("job.0", "job.0/2", "last.0", "last.0/2")}
    )
    async with open_simulation(both(1), lives) as sim:
        await trio.sleep(10)
        after = both(2, service("new"), new="ready")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reload, sim, after)
            await trio.sleep(30)
            started = [name for _, name in sim.started if "/2" in name]
            assert sorted(started) == ["db.1/2", "job.0/2", "new.0/2", "web.1/2"]
            assert "alone.0" in sim.running
        assert sim.running == [
            *("alone.0/2", "db.0/2", "db.1/2", "new.0/2", "redis.0"),
            *("web.0/2", "web.1/2"),
        ]
        assert sim.events(CanaryPassed)[0][1].endswith("db.1, web.1; reload continues")
        await sim.check_picture()


@in_virtual_time
async def test_nothing_to_replace_needs_no_canary() -> None:
    async with open_simulation(app()) as sim:
        await trio.sleep(10)
        assert await reload(sim, app(), changed_only=True) == ()
        assert trio.current_time() == 10
        assert sim.events(CanaryStarted) == []


@in_virtual_time
async def test_changed_only_tries_the_services_that_change() -> None:
    before = Application([service("web", count=2), service("jobs", count=2)])
    after = Application([service("web", count=2), service("jobs", count=2, nice=1)])
    async with open_simulation(before) as sim:
        await trio.sleep(10)
        assert await reload(sim, after, changed_only=True) == ("jobs.1",)
        assert sim.running == ["jobs.0/2", "jobs.1/2", "web.0", "web.1"]


@in_virtual_time
async def test_crash_that_old_workers_have_too_is_excused() -> None:
    lives = script(
        {
            "web.0": [Life(exits_after=30, returncode=1)],
            "web.2/2": [Life(exits_after=20, returncode=1)],
        }
    )
    async with open_simulation(app(), lives) as sim:
        await trio.sleep(10)
        await reload(sim, changed())
        assert sim.child("web.2").incarnation == 2
        assert sim.running == ["web.0/2", "web.1/2", "web.2/2"]


@in_virtual_time
async def test_worker_that_failed_before_is_not_tried() -> None:
    """There is no old worker to compare it with, and it may fail as before."""
    bad = Life(ready_after=NEVER, exits_after=0.1, returncode=3)
    lives = script({"bad.0": [bad] * 999, "bad.0/2": [bad] * 999})
    before = Application([service("bad"), service("web", count=2)])
    after = Application([service("bad", nice=1), service("web", count=2)])
    async with open_simulation(before, lives) as sim:
        await trio.sleep(20)
        plan = await sim.controller.reload(after, canary=1)
        assert plan.canaries == ("web.1",)
        assert set(plan.not_ready) == {"bad.0"}


@in_virtual_time
async def test_stopped_worker_stays_stopped() -> None:
    async with open_simulation(app()) as sim:
        await trio.sleep(10)
        await sim.controller.stop("web.2")
        assert await reload(sim, changed()) == ("web.1",)
        assert sim.child("web.2").state is State.STOPPED


# It fails, and the old workers have never stopped.


@pytest.mark.parametrize(
    ("lives", "at", "problem"),
    [
        ([CRASH] * 3, 25.25, r"exited 3 times in 15 s \(exit code 1\); no worker"),
        ([Life(exits_after=9, returncode=0)] * 3, 37.25, r"3 times .*exit code 0"),
        ([Life(exits_after=50, returncode=1)], 70.25, "exited once in 60 s"),
        ([Life(exits_after=9, returncode=-11)] * 3, 37.25, "killed by SIGSEGV"),
        ([Life(unready_after=20)], 70.25, r"is not ready after 60 s \(unready\)"),
        (
            [Life(exits_after=20), *[Life(can_spawn=False)] * 9],
            30.25,
            "failed to start",
        ),
    ],
    ids=["crash loop", "exit", "one crash", "signal", "unready", "start"],
)
@in_virtual_time
async def test_bad_canary_is_rolled_back(
    lives: list[Life], at: float, problem: str
) -> None:
    async with open_simulation(app(), script({"web.2/2": lives})) as sim:
        await trio.sleep(10)
        await fail(sim, rf"^rolled back: web\.2 of the new generation .*{problem}")
        [(time, text)] = sim.events(CanaryFailed)
        assert time == pytest.approx(at, abs=3)
        assert text.startswith(
            "controller: canary of generation 2 failed; rolling back"
        )
        assert "generation 1 keeps running: rolled back: web.2" in str(
            sim.events(ReloadFailed)[0][1]
        )


@in_virtual_time
async def test_next_canary_may_pass() -> None:
    async with open_simulation(app(), script({"web.2/2": [CRASH] * 3})) as sim:
        await trio.sleep(10)
        await fail(sim, "rolled back")
        await reload(sim, changed())
        assert sim.running == ["web.0/2", "web.1/2", "web.2/2"]


@in_virtual_time
async def test_canary_that_is_never_ready_fails_as_in_any_reload() -> None:
    lives = script({"web.2/2": [Life(ready_after=NEVER)]})
    async with open_simulation(app(), lives) as sim:
        await trio.sleep(10)
        await fail(sim, r"^web\.2 of the new generation failed: not ready after 60 s")
        assert sim.events(CanaryStarted) == []


@in_virtual_time
async def test_canary_that_may_not_restart_fails_at_once() -> None:
    """And the restart limit of its group concerns the old generation alone."""
    lives = script({"web.2/2": [CRASH]})
    after = changed(restart="always", intensity=0)
    async with open_simulation(app(), lives) as sim:
        await trio.sleep(10)
        await fail(sim, r"web\.2 .* is not restarted: exit code 1", application=after)
        assert sim.events(GroupFailed) == []
        assert sim.failure is None
        assert sim.events(CanaryFailed)[0][0] < 20


@in_virtual_time
async def test_one_bad_service_of_several_is_enough() -> None:
    def two(**fields: Any) -> Application:
        return Application(
            [service("web", count=2, **fields), service("jobs", count=2, **fields)]
        )

    lives = script({"jobs.1/2": [CRASH] * 9})
    async with open_simulation(two(), lives) as sim:
        await trio.sleep(10)
        await fail(sim, r"rolled back: jobs\.1 of", application=two(nice=1))


@pytest.mark.parametrize(
    ("before", "match"),
    [
        (app(overlap=False), r"no service can have a canary: web \(overlap=False\);"),
        (app(autostart=False), r"web \(no worker is ready\); reload without it"),
    ],
    ids=["overlap", "autostart"],
)
@in_virtual_time
async def test_reload_without_possible_canary_is_refused(
    before: Application, match: str
) -> None:
    async with open_simulation(before) as sim:
        await trio.sleep(10)
        after = Application([service("web", count=3, nice=1, overlap=match[-1] == "t")])
        if "overlap=F" in match:
            after = app(overlap=False, nice=1)
        await fail(sim, match, application=after)


@in_virtual_time
async def test_bad_numbers_are_refused_before_anything() -> None:
    async with open_simulation(app()) as sim:
        await trio.sleep(10)
        for options in (
            {"canary": 0},
            {"canary_for": 5},
            {"canary": 1, "dry_run": True},
        ):
            with pytest.raises(SpecError):
                await reload(sim, changed(), **{"canary": None, **options})
        assert sim.events(ReloadFailed) == []


@in_virtual_time
async def test_canary_that_has_done_its_work_is_compared_at_the_end() -> None:
    """It may be done, but then the old workers must be done as well."""
    lives = script({"web.2/2": [Life(exits_after=9)], "web.0": [Life(exits_after=35)]})
    web = {"restart": "on-failure"}
    async with open_simulation(app(**web), lives) as sim:
        await trio.sleep(10)
        await reload(sim, changed(**web))
        assert sim.child("web.2").has_done_its_work


# Figures of the processes.


def measuring(
    sim: Simulation, sizes: Callable[[str, float], float]
) -> Callable[[Sequence[int]], Any]:
    """Return what measures memory: *sizes* of worker and time [MiB]."""

    async def measure(process_ids: Sequence[int]) -> Mapping[int, int]:
        await trio.lowlevel.checkpoint()
        children = sim.controller.everyone()
        named = {c.process.pid: c for c in children if c.process is not None}
        found = {}
        for process_id in process_ids:
            plan = named[process_id].plan
            name = f"{plan.name}/{plan.generation}"
            found[process_id] = round(sizes(name, trio.current_time()) * MIB)
        return found

    return measure


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [
        (lambda name, _: 200 if name == "web.2/2" else 50, "uses 200.0 MiB of memory"),
        (lambda name, now: 50 + now * (name == "web.2/2"), "grew steadily by 60.0 MiB"),
    ],
    ids=["size", "growth"],
)
@in_virtual_time
async def test_memory_rolls_back(
    sizes: Callable[[str, float], float], problem: str
) -> None:
    async with open_simulation(app()) as sim:
        await trio.sleep(10)
        sim.controller.reloader.measure = measuring(sim, sizes)
        await fail(sim, rf"rolled back: web\.2 of the new generation {problem}")


@in_virtual_time
async def test_memory_of_all_may_grow() -> None:
    async with open_simulation(app()) as sim:
        await trio.sleep(10)
        sim.controller.reloader.measure = measuring(sim, lambda _, now: 50 + now)
        await reload(sim, changed())


@pytest.mark.parametrize(("seconds", "fails"), [(40, True), (39, False)])
@in_virtual_time
async def test_late_event_loop_rolls_back(seconds: float, fails: bool) -> None:
    """If there are enough heartbeats to compare: four of ten seconds each."""
    async with open_simulation(app(health_check_timeout=30)) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_beating, sim, nursery.cancel_scope)
            await trio.sleep(1)
            after = changed(health_check_timeout=30)
            options: dict[str, Any] = {"application": after, "canary_for": seconds}
            if fails:
                await fail(sim, r"event loop of web\.2 .* for 100% of", **options)
            else:
                await reload(sim, **options)
            nursery.cancel_scope.cancel()


async def keep_beating(sim: Simulation, scope: trio.CancelScope) -> None:
    """Give heartbeats for all workers; the loops of the new generation are late."""
    while True:
        for child in sim.controller.everyone():
            lag = 0.5 * (child.plan.generation - 1)
            child.loop_lag = partial(float, lag)
            child._watch.heartbeat_age = lambda: 0.0
        await trio.sleep(0.1)


class CountedErrors(MetricsBank):
    """Counts as if each new worker failed five times a second, an old one rarely."""

    def __init__(self, everyone: Callable[[], Iterable[Child]]) -> None:
        super().__init__()
        self.everyone = everyone

    def errors_of(self, process_id: int) -> float:
        named = {c.process.pid: c for c in self.everyone() if c.process is not None}
        is_new = named[process_id].plan.generation == 2
        return trio.current_time() * (5 if is_new else 0.1)


@in_virtual_time
async def test_errors_roll_back() -> None:
    async with open_simulation(app()) as sim:
        await trio.sleep(10)
        core = core_of(sim.controller)
        core.metrics = CountedErrors(core.everyone)
        await fail(sim, r"web\.2 of the new generation counted 1. errors in")


# Other requests meanwhile.


@in_virtual_time
async def test_other_changes_are_refused_meanwhile() -> None:
    async with open_simulation(app()) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reload, sim, changed())
            await trio.sleep(30)
            controller = sim.controller
            refusal = (
                "^a reload is in progress: its canary is compared for another 30 s; "
                "try again when it has finished, or abort it$"
            )
            for request in (
                partial(controller.reload, changed()),
                partial(controller.scale, {"web": 5}),
                partial(controller.stop, "web"),
                partial(controller.start, "web"),
            ):
                with pytest.raises(UnavailableError, match=refusal):
                    await request()
            await controller.restart("web")  # of the old generation
        assert sim.running == ["web.0/2", "web.1/2", "web.2/2"]
        restarted = [name for time, name in sim.started if time == 40]
        assert sorted(restarted) == ["web.0", "web.1", "web.2"]


@in_virtual_time
async def test_service_on_demand_starts_meanwhile() -> None:
    """A client has connected; the next generation starts it when another does."""
    both = [service("web", count=2), service("rare", autostart=False)]
    async with open_simulation(Application(both)) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reload, sim, Application(both))
            await trio.sleep(30)
            await sim.controller.verbs.start(["rare"], Cause.IDLE)
            assert "rare.0" in sim.running
        assert sim.running == ["web.0/2", "web.1/2"]
        assert sim.child("rare.0").state is State.STOPPED


@in_virtual_time
async def test_abort_stops_the_canary() -> None:
    async with open_simulation(app()) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(fail, sim, "^aborted$"))
            await trio.sleep(30)
            await sim.controller.abort_reload()
        assert sim.running == ["web.0", "web.1", "web.2"]
        assert observed(sim) == {}


@in_virtual_time
async def test_shutdown_ends_the_observation() -> None:
    async with open_simulation(app()) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:

            async def try_reload() -> None:
                with pytest.raises(UnavailableError, match="shut down during"):
                    await reload(sim, changed(), canary_for=3600)

            nursery.start_soon(try_reload)
            await trio.sleep(30)
            sim.controller.shutdown("now")
            await sim.is_over.wait()
        assert trio.current_time() < 45
        assert sim.running == []
        assert sim.events(CanaryFailed, CanaryPassed) == []


@in_virtual_time
async def test_caller_that_goes_away_ends_nothing() -> None:
    async with open_simulation(app()) as sim:
        await trio.sleep(10)
        with trio.move_on_after(30):
            await reload(sim, changed())
        await trio.sleep(60)
        assert sim.running == ["web.0/2", "web.1/2", "web.2/2"]


@in_virtual_time
async def test_lost_supervisor_ends_nothing() -> None:
    async with open_simulation(app()) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reload, sim, changed())
            await trio.sleep(20)
            sim.controller.supervisor.process.exit(-signal.SIGKILL)
            await trio.sleep(5)
            assert observed(sim) == {"web.2": 2}
        assert sim.running == ["web.0/2", "web.1/2", "web.2/2"]


@in_virtual_time
async def test_monitor_restarts_the_canary_and_not_its_namesake() -> None:
    async with open_simulation(app()) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(fail, sim, r"was restarted 2 times in 60 s \(.*monitor: leaks")
            )
            for incarnation in (1, 2):
                await trio.sleep(10)
                verbs = sim.controller.verbs
                await verbs.restart_for_monitor(["web.2"], incarnation, 2, "leaks")
        starts = [name for time, name in sim.started if time > 10.25]
        assert starts == ["web.2/2", "web.2/2"]
