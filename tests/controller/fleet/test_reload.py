"""A new generation takes over, or nothing changes: in virtual time."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.kits.controller import (
    NEVER,
    Life,
    Part,
    Simulation,
    open_simulation,
    script,
    service,
)
from trio_supervisor.application import Application, Command
from trio_supervisor.controller.events import (
    ReloadFailed,
    ReloadFinished,
    ReloadStarted,
    RestartLimitReached,
    ServiceScaled,
    WorkerStillFailing,
)
from trio_supervisor.errors import (
    ReloadError,
    SpecError,
    SupervisorError,
    UnavailableError,
)
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.testing import in_virtual_time


def app(**web: Any) -> Application:
    """A database, and a web service with other options now and then."""
    return Application(
        [
            Command("db", ["db"], notify=True, backoff=None),
            service("web", **({"count": 2, "depends_on": {"db": "ready"}} | web)),
        ]
    )


def changed(**web: Any) -> Application:
    return app(stop_timeout=9, **web)


async def fail_to_reload(
    sim: Simulation, application: Application, match: str, **how: bool
) -> None:
    """See that a reload fails, and that all is as it was, and told so."""
    before = {name: c.plan for name, c in sim.controller.children.items()}
    generation = sim.controller.generation
    failures = len(sim.events(ReloadFailed))
    with pytest.raises(SupervisorError, match=match), trio.fail_after(600):
        await sim.controller.reload(application, **how)
    await trio.sleep(1)
    assert sim.controller.generation is generation
    assert list(sim.controller.children) == list(before)
    assert not any("/" in name for name in sim.running)
    assert len(sim.events(ReloadFailed)) == failures + 1
    sim.controller.reloader.check_idle()
    await sim.check_picture()


# It succeeds.


@in_virtual_time
async def test_the_new_are_ready_before_the_old_are_stopped() -> None:
    async with open_simulation(app(), lambda _: Life(ready_after=2.0)) as sim:
        await trio.sleep(10)
        plan = await sim.controller.reload(changed())
        assert list(plan.lines()) == [
            "= db (unchanged, kept)",
            "~ web: stop_timeout 10.0 -> 9.0",
        ]
        assert sim.ended == [(12, "web.0"), (12, "web.1")] or sim.ended == [
            (12, "web.1"),
            (12, "web.0"),
        ]
        assert sim.running == ["db.0", "web.0/2", "web.1/2"]
        assert sim.controller.generation.number == 2
        assert [words for _, words in sim.events(ReloadFinished)] == [
            "controller: reload finished: generation 2 took over after 2.00 s"
        ]
        await sim.check_picture()


@in_virtual_time
async def test_the_same_again_replaces_what_runs_code() -> None:
    """Its code may be new; with `changed_only` it is kept where it is not."""
    async with open_simulation(app()) as sim:
        await sim.controller.wait_ready()
        plan = await sim.controller.reload(app(), changed_only=True)
        assert plan.of("keep") == plan.services
        assert not plan.application
        assert sim.running == ["db.0", "web.0", "web.1"]
        await sim.controller.reload(app())
        assert sim.running == ["db.0", "web.0/3", "web.1/3"]


@in_virtual_time
async def test_what_is_new_comes_and_what_is_gone_goes_in_order() -> None:
    before = Application([service("old"), service("web", depends_on={"old": "ready"})])
    after = Application(
        [
            service("new"),
            service("web", depends_on={"new": "ready"}),
            service("job", depends_on={"web": "ready"}, restart="never"),
        ]
    )
    done = Life(ready_after=NEVER, exits_after=3)
    lives = script({"web.0": [Life(stopping_takes=5)], "job.0/2": [done]})
    async with open_simulation(before, lives) as sim:
        await trio.sleep(10)
        plan = await sim.controller.reload(after)
        assert [(s.name, s.action) for s in plan.services] == [
            ("new", "add"),
            ("web", "change"),
            ("job", "add"),
            ("old", "remove"),
        ]
        assert sim.started[2:] == [
            (10, "new.0/2"),
            (10.25, "web.0/2"),
            (10.5, "job.0/2"),
        ]
        # The job has done its work, then the old go: what needs others first.
        assert sim.ended[1:] == [(18.5, "web.0"), (18.5, "old.0")]
        assert sim.child("job.0").state is State.STOPPED
        await sim.check_picture()


@in_virtual_time
async def test_one_that_does_not_bear_company_is_stopped_first() -> None:
    lives = script({"web.0": [Life(stopping_takes=3)]})
    async with open_simulation(app(count=1, overlap=False), lives) as sim:
        await trio.sleep(10)
        await sim.controller.reload(changed(count=1, overlap=False))
        assert sim.ended == [(13, "web.0")]
        assert sim.started[-1] == (13, "web.0/2")
        await sim.check_picture()


@in_virtual_time
async def test_rollback_leaves_stopped_what_was_being_stopped_by_hand() -> None:
    """Its process has not exited yet when the reload waits for its end."""

    def both(**options: Any) -> Application:
        return Application(
            [service("web", overlap=False, **options), service("bad", **options)]
        )

    lives = script(
        {"web.0": [Life(stopping_takes=3)], "bad.0/2": [Life(exits_after=0)]}
    )
    async with open_simulation(both(), lives) as sim:
        await sim.controller.wait_ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sim.controller.stop, "web")
            await wait_all_tasks_blocked()
            await fail_to_reload(sim, both(stop_timeout=9), "bad")
        await trio.sleep(60)
        assert sim.running == ["bad.0"]
        assert sim.child("web.0").state is State.STOPPED


@in_virtual_time
async def test_a_dry_run_only_says_what_it_would_do() -> None:
    async with open_simulation(app()) as sim:
        await sim.controller.wait_ready()
        plan = await sim.controller.reload(changed(count=3), dry_run=True)
        assert [s.action for s in plan.services] == ["keep", "change"]
        assert sim.controller.generation.number == 1
        assert sim.events(ReloadStarted, ReloadFailed, ReloadFinished) == []
        assert len(sim.started) == 3


@in_virtual_time
async def test_a_count_set_by_hand_survives_until_another_is_declared() -> None:
    async with open_simulation(app()) as sim:
        await sim.controller.wait_ready()
        await sim.controller.scale({"web": 4})
        await sim.controller.reload(changed())
        assert len(sim.controller.children) == 5
        plan = await sim.controller.reload(changed(), changed_only=True)
        assert plan.services[1].is_scaled
        await sim.controller.reload(changed(count=1), changed_only=True)
        assert sim.running == ["db.0", "web.0/2"]
        assert len(sim.events(ServiceScaled)) == 2
        plan = await sim.controller.reload(changed(count=1))
        assert not plan.services[1].is_scaled
        await sim.check_picture()


@in_virtual_time
async def test_a_kept_worker_goes_on_as_one_of_the_new_generation() -> None:
    """It can be restarted, scaled, stopped, and waits for the new ones."""
    async with open_simulation(app()) as sim:
        await sim.controller.wait_ready()
        await sim.controller.reload(changed())
        sim.process("db.0").exit(1)
        await wait_all_tasks_blocked()
        assert sim.child("db.0").incarnation == 2
        assert await sim.controller.stop("db") == ("web.0", "web.1", "db.0")
        await sim.controller.start("web")
        assert sim.running == ["db.0", "web.0/2", "web.1/2"]
        await sim.check_picture()


@in_virtual_time
async def test_one_that_waits_and_is_kept_looks_at_the_new_generation() -> None:
    """What it needs failed in the old one, and is there in the new."""

    def both(**db: Any) -> Application:
        return Application(
            [
                service("db", restart="never", **db),
                Command("web", ["w"], notify=True, depends_on={"db": "ready"}),
            ]
        )

    lives = script({"db.0": [Life(exits_after=0.125, returncode=1)]})
    async with open_simulation(both(), lives) as sim:
        await trio.sleep(5)
        assert sim.states == {"db.0": State.FAILED, "web.0": State.WAITING}
        await sim.controller.reload(both(stop_timeout=3))
        await trio.sleep(5)
        assert sim.states == {"db.0": State.READY, "web.0": State.READY}


# It fails, and all is as it was.


@pytest.mark.parametrize(
    ("life", "story"),
    [
        (Life(can_spawn=False), "no such program"),
        (Life(ready_after=NEVER, exits_after=3, returncode=1), "exit code 1"),
        (Life(ready_after=NEVER, exits_after=3, returncode=0), "exit code 0"),
        (Life(ready_after=NEVER), r"failed: not ready after 60 s \(startup_timeout\)"),
        (Life(spawn_takes=NEVER), "failed: not started after 60 s"),
    ],
    ids=["no program", "ends", "ends well", "never ready", "never started"],
)
@in_virtual_time
async def test_one_that_does_not_become_ready_leaves_all_as_it_was(
    life: Life, story: str
) -> None:
    async with open_simulation(app(), script({"web.1/2": [life]})) as sim:
        await trio.sleep(10)
        await fail_to_reload(sim, changed(), rf"web\.1 of the new .*{story}")
        assert sim.ended == [e for e in sim.ended if "/2" in e[1]]
        assert sim.running == ["db.0", "web.0", "web.1"]
        assert sim.events(RestartLimitReached) == []
        # And the next one may succeed.
        await sim.controller.reload(changed())
        assert sim.running == ["db.0", "web.0/2", "web.1/2"]
        await sim.check_picture()


@in_virtual_time
async def test_one_that_ends_after_it_was_ready_fails_it_too() -> None:
    """As long as others are not ready."""
    lives = script(
        {
            "web.0/2": [Life(exits_after=5, returncode=0)],
            "web.1/2": [Life(ready_after=20)],
        }
    )
    async with open_simulation(app(), lives) as sim:
        await trio.sleep(10)
        await fail_to_reload(sim, changed(), r"web\.0 of the new generation exited")
        assert sim.running == ["db.0", "web.0", "web.1"]


@pytest.mark.parametrize(
    "life",
    [Life(can_spawn=False), Life(ready_after=NEVER, exits_after=3, returncode=1)],
    ids=["at once", "later"],
)
@in_virtual_time
async def test_one_that_gave_way_is_brought_back(life: Life) -> None:
    lives = script({"web.0/2": [life], "web.0": [Life(stopping_takes=2)]})
    async with open_simulation(app(overlap=False, count=1), lives) as sim:
        await trio.sleep(10)
        await fail_to_reload(sim, changed(overlap=False, count=1), r"web\.0 of the new")
        assert sim.running == ["db.0", "web.0"]
        await sim.controller.wait_ready()
        await sim.controller.restart("web")
        await sim.check_picture()


@pytest.mark.parametrize("is_failing", [True, False])
@in_virtual_time
async def test_who_hears_the_answer_finds_nothing_left_of_the_others(
    is_failing: bool,
) -> None:
    """In `status` of that very moment: not a new one that failed, nor an old one."""
    ready_after = NEVER if is_failing else 0.25
    lives = script({"web.0/2": [Life(ready_after=ready_after)]})
    async with open_simulation(app(count=1), lives) as sim:
        await sim.controller.wait_ready()
        await trio.sleep(1)
        with suppress(ReloadError):
            await sim.controller.reload(changed(count=1))
        now = trio.current_time()
        await wait_all_tasks_blocked()
        assert trio.current_time() == now
        known = sim.servers[-1].registry._all
        assert set(known) == {record.key for record in sim.controller.workers}


@in_virtual_time
async def test_one_that_is_brought_back_is_waited_for() -> None:
    """By the reload that failed, and by who waits for all to be ready."""
    web = {"overlap": False, "count": 1}
    lives = script({"web.0/2": [Life(can_spawn=False)]})
    async with open_simulation(app(**web), lives) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_fail, sim, changed(**web))
            await trio.sleep(0.1)
            await sim.controller.wait_ready()
            assert trio.current_time() == 10.25
        assert trio.current_time() == 10.25
        assert sim.states["web.0"] is State.READY


async def _fail(sim: Simulation, application: Application) -> None:
    with pytest.raises(ReloadError):
        await sim.controller.reload(application)


@pytest.mark.parametrize(
    ("back", "moment"),
    [
        (Life(exits_after=0.1, returncode=1, ready_after=NEVER), 10.1),
        (Life(can_spawn=False), 10),
    ],
    ids=["ends again", "cannot be started"],
)
@in_virtual_time
async def test_one_that_does_not_come_back_is_not_waited_for_for_ever(
    back: Life, moment: float
) -> None:
    web = {"overlap": False, "count": 1, "intensity": None}
    lives = script(
        {"web.0/2": [Life(can_spawn=False)], "web.0": [Life(), *[back] * 1000]}
    )
    async with open_simulation(app(**web), lives) as sim:
        await trio.sleep(10)
        await _fail(sim, changed(**web))
        assert trio.current_time() == pytest.approx(moment, abs=1)
        sim.controller.reloader.check_idle()


@in_virtual_time
async def test_everything_may_be_stopped_while_one_is_brought_back() -> None:
    web = {"overlap": False, "count": 1}
    lives = script(
        {"web.0/2": [Life(can_spawn=False)], "web.0": [Life(), Life(ready_after=50)]}
    )
    async with open_simulation(app(**web), lives) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_fail, sim, changed(**web))
            await trio.sleep(1)
            sim.controller.shutdown()
            await sim.is_over.wait()
        assert trio.current_time() == 11


@in_virtual_time
async def test_what_a_kept_service_lacks_is_ready_before_it_takes_over() -> None:
    life = Life(ready_after=2.0)
    async with open_simulation(app(), lambda _: life) as sim:
        await trio.sleep(10)
        await sim.controller.reload(app(count=4), changed_only=True)
        assert trio.current_time() == 12
        assert sim.running == ["db.0", "web.0", "web.1", "web.2/2", "web.3/2"]
        assert set(sim.states.values()) == {State.READY}
        assert [words for _, words in sim.events(ServiceScaled)] == [
            "web: scaled from 2 to 4"
        ]
        await sim.controller.reload(app(count=3), changed_only=True)
        assert sim.running == ["db.0", "web.0", "web.1", "web.2/2"]
        assert sim.child("web.0").incarnation == 1
        await sim.check_picture()


@in_virtual_time
async def test_and_where_it_does_not_come_all_is_as_it_was() -> None:
    lives = script({"web.3/2": [Life(ready_after=NEVER, exits_after=3, returncode=9)]})
    async with open_simulation(app(), lives) as sim:
        await sim.controller.wait_ready()
        with pytest.raises(ReloadError, match=r"web\.3 of the new .* exit code 9"):
            await sim.controller.reload(app(count=4), changed_only=True)
        assert sim.running == ["db.0", "web.0", "web.1"]
        assert sim.events(ServiceScaled) == []
        await sim.controller.scale({"web": 3})
        assert sim.running == ["db.0", "web.0", "web.1", "web.2"]
        await sim.check_picture()


@pytest.mark.parametrize(
    "problem", [SpecError("target", "cannot be"), OSError("no processes left")]
)
@in_virtual_time
async def test_a_generation_that_cannot_be_made_is_a_failed_reload(
    problem: Exception,
) -> None:
    async with open_simulation(app()) as sim:
        await sim.controller.wait_ready()

        async def fail() -> None:
            raise problem

        sim.makes.append(fail)
        await fail_to_reload(sim, changed(), str(problem))
        assert len(sim.events(ReloadStarted)) == 1


@in_virtual_time
async def test_it_fails_where_what_is_needed_is_not_going_to_come() -> None:
    """A command that was stopped by hand is kept, and stays stopped."""
    page = service("page", depends_on={"web": "ready"})
    more = Application([*app().services, page])
    async with open_simulation(app()) as sim:
        await sim.controller.wait_ready()
        await sim.controller.stop("db")
        reason = r"page\.0 .*is waiting for web .* is stopped"
        with pytest.raises(ReloadError, match=reason):
            with trio.fail_after(600):
                await sim.controller.reload(more)
        assert sim.running == []
        sim.controller.reloader.check_idle()


@in_virtual_time
async def test_what_was_stopped_by_hand_stays_so_in_the_new_generation() -> None:
    """Whether it is kept or replaced, and also with more workers than before."""
    async with open_simulation(app()) as sim:
        await sim.controller.wait_ready()
        await sim.controller.stop("web.1")
        await sim.controller.reload(changed(count=3))
        assert sim.running == ["db.0", "web.0/2", "web.2/2"]
        await sim.controller.stop("db")
        await sim.controller.reload(app(count=4))
        assert sim.running == []
        assert sim.controller.generation.number == 3
        await sim.check_picture()
        await sim.controller.start("web")
        assert sim.running == ["db.0", *(f"web.{n}/3" for n in range(4))]
        await sim.check_picture()


CHAIN = {"overlap": False, "backoff": None}


def chain(code: int = 0, **mails: Any) -> Application:
    """A job, and services of which no two can run at once, one after the other."""
    return Application(
        [
            service("migration", restart="on-failure", **CHAIN),
            service("db", depends_on={"migration": "exited_ok"}, **CHAIN),
            service("web", depends_on={"db": "ready"}, **CHAIN),
            service("page", depends_on={"web": "ready"}, stop_timeout=30),
            service("mails", depends_on={"db": "started"}, **mails),
        ]
    )


DONE = Life(ready_after=NEVER, exits_after=1)


@in_virtual_time
async def test_what_bears_no_company_gives_way_in_order() -> None:
    """What needs it and bears none either first; what does bear it goes on."""
    lives = script({"migration.0": [DONE], "migration.0/2": [DONE]})
    async with open_simulation(chain(), lives) as sim:
        await trio.sleep(10)
        await sim.controller.reload(chain())
        names = [name for _, name in sim.ended]
        assert names.index("web.0") < names.index("db.0")
        assert names.index("db.0") < names.index("page.0")
        started = [name for _, name in sim.started[5:]]
        assert started.index("db.0/2") < started.index("web.0/2")
        assert started.index("web.0/2") < started.index("page.0/2")
        await sim.check_picture()


def released(version: int) -> Application:
    """A job before a service that cannot run beside its successor."""
    return Application(
        [
            service("release", restart="on-failure", state={"v": version}, **CHAIN),
            service(
                "web",
                depends_on={"release": "exited_ok"},
                state={"v": version},
                **CHAIN,
            ),
        ]
    )


@in_virtual_time
@pytest.mark.parametrize("code", [0, 4])
async def test_old_ones_run_until_the_job_that_comes_first_is_done(code: int) -> None:
    """It takes five seconds, and is ready in between."""
    job = Life(ready_after=1, exits_after=5, returncode=code)
    lives = script({"release.0": [DONE], "release.0/2": [job]})
    async with open_simulation(released(1), lives) as sim:
        await trio.sleep(10)
        before = len(sim.ended)
        if code:
            with pytest.raises(ReloadError, match="exit code 4"):
                await sim.controller.reload(released(2))
            assert "web.0" not in [name for _, name in sim.ended]
        else:
            await sim.controller.reload(released(2))
            ended = [each for each in sim.ended[before:] if each[1] == "web.0"]
            assert ended == [(15, "web.0")]
        await sim.settle()
        assert sim.running == ["web.0" if code else "web.0/2"]
        await sim.check_picture()


@in_virtual_time
async def test_a_failed_reload_brings_back_only_what_it_has_stopped() -> None:
    """No job that is done, and nothing that was stopped by hand."""
    lives = script(
        {
            "migration.0": [DONE],
            "migration.0/2": [DONE],
            "mails.0/2": [Life(ready_after=NEVER, exits_after=2, returncode=3)],
        }
    )
    async with open_simulation(chain(), lives) as sim:
        await trio.sleep(10)
        await sim.controller.stop("web")
        with pytest.raises(ReloadError, match="exit code 3"):
            await sim.controller.reload(chain())
        await sim.settle()
        assert sim.running == ["db.0", "mails.0"]
        names = [name for _, name in sim.started]
        assert names.count("migration.0") == 1
        assert names.count("migration.0/2") == 1
        assert sim.states["migration.0"] is State.STOPPED
        await sim.controller.start("page")
        assert sim.running == ["db.0", "mails.0", "page.0", "web.0"]
        await sim.check_picture()


@in_virtual_time
async def test_an_old_one_that_crashes_meanwhile_needs_the_new_ones() -> None:
    """What it needs has given way: those in its place will do."""
    lives = script(
        {
            "migration.0": [DONE],
            "migration.0/2": [DONE],
            "page.0": [Life(exits_after=16, returncode=1)],
            "mails.0/2": [Life(ready_after=50)],
        }
    )
    async with open_simulation(chain(), lives) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sim.controller.reload, chain())
            await trio.sleep(15)
            assert "page.0" in sim.running
            assert sim.child("page.0").incarnation == 2
        assert sim.controller.generation.number == 2
        await sim.check_picture()


@in_virtual_time
async def test_a_mistake_of_ours_during_a_reload_hangs_nobody() -> None:
    """All is cancelled then, and there is nothing that could be brought back."""

    def live(part: Part) -> Life:
        if part.incarnation == 2:
            raise RuntimeError("a mistake of ours")
        exits_after = 15 if part.service == "db" else NEVER
        return Life(ready_after=10 * part.generation, exits_after=exits_after)

    async def reload() -> None:
        async with open_simulation(app(), live) as sim:
            await trio.sleep(30)
            await sim.controller.reload(changed())

    with pytest.raises(BaseExceptionGroup) as caught:
        await reload()
    assert caught.group_contains(RuntimeError, match="a mistake of ours")


@in_virtual_time
async def test_a_kept_worker_tells_what_it_needs_now() -> None:
    def pair(**web: Any) -> Application:
        return Application([Command("db", ["db"], backoff=None), *_web(**web)])

    async with open_simulation(pair()) as sim:
        await sim.controller.wait_ready()
        await sim.controller.reload(
            pair(depends_on={"db": "started"}), changed_only=True
        )
        needs = {record.name: record.needs for record in sim.controller.workers}
        assert needs == {"db.0": (), "web.0": ("db (started)",)}
        await sim.check_picture()


def _web(**fields: Any) -> list[Command]:
    return [Command("web", ["web"], backoff=None, **fields)]


@in_virtual_time
async def test_what_is_needed_and_is_away_for_a_moment_is_waited_for() -> None:
    """Although it belongs to the old generation still."""
    lives = script({"db.0": [Life(exits_after=10, returncode=1), Life(ready_after=5)]})
    async with open_simulation(app(), lives) as sim:
        await trio.sleep(11)
        with trio.fail_after(600):
            await sim.controller.reload(changed())
        assert sorted(sim.started[-2:]) == [(15, "web.0/2"), (15, "web.1/2")]


@in_virtual_time
async def test_an_application_that_is_embedded_has_no_target_to_import() -> None:
    async with open_simulation(app()) as sim:
        with pytest.raises(UnavailableError, match="can pass a new one"):
            await sim.controller.reload()
        assert len(sim.events(ReloadFailed)) == 1


# While it goes on.


@in_virtual_time
async def test_nothing_else_is_changed_during_a_reload() -> None:
    """But a cancelled caller does not end it."""
    async with open_simulation(app(), lambda _: Life(ready_after=5)) as sim:
        await trio.sleep(20)
        with trio.move_on_after(1):
            await sim.controller.reload(changed())
        controller = sim.controller
        for change in (
            lambda: controller.reload(changed()),
            lambda: controller.scale({"web": 1}),
            lambda: controller.stop("web"),
            lambda: controller.start("web"),
        ):
            with pytest.raises(UnavailableError, match="a reload is in progress"):
                await change()
        await trio.sleep(10)
        assert sim.running == ["db.0", "web.0/2", "web.1/2"]


@pytest.mark.parametrize("moment", [0.0, 1.0, 2.5, 4.0, 6.5])
@pytest.mark.parametrize("overlap", [True, False])
@in_virtual_time
async def test_a_shutdown_during_a_reload_ends_all(
    moment: float, overlap: bool
) -> None:
    """At every stage; and whoever asked for the reload is told."""
    life = Life(ready_after=2, stopping_takes=2)
    async with open_simulation(app(overlap=overlap), lambda _: life) as sim:
        await trio.sleep(10)
        outcomes: list[object] = []

        async def reload() -> None:
            try:
                outcomes.append(await sim.controller.reload(changed(overlap=overlap)))
            except SupervisorError as exc:
                outcomes.append(exc)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reload)
            await trio.sleep(moment)
            sim.controller.shutdown("now")
            with trio.fail_after(100):
                await sim.is_over.wait()
        assert len(outcomes) == 1
        assert all(began <= 10 + moment for began, _ in sim.started)


@in_virtual_time
async def test_a_reload_that_a_shutdown_cuts_off_says_so() -> None:
    """Whatever it was about: here its workers are not even made."""
    async with open_simulation(app()) as sim:
        await sim.controller.wait_ready()
        sim.makes.append(trio.sleep_forever)
        async with trio.open_nursery() as nursery:

            async def reload() -> None:
                with pytest.raises(UnavailableError, match="the controller shut down"):
                    await sim.controller.reload(changed())

            nursery.start_soon(reload)
            await trio.sleep(1)
            sim.controller.shutdown("now")


@in_virtual_time
async def test_an_old_one_that_crashes_while_it_waits_to_be_stopped_stays_so() -> None:
    """The new generation is in charge: there is nothing to repair, or to give up."""
    before = Application(
        [service("db", intensity=0), service("web", depends_on={"db": "ready"})]
    )
    after = Application([service("web")])
    lives = script(
        {
            "db.0": [Life(exits_after=12, returncode=1)],
            "web.0": [Life(stopping_takes=8)],
        }
    )
    async with open_simulation(before, lives) as sim:
        await trio.sleep(10)
        await sim.controller.reload(after)
        assert sim.running == ["web.0/2"]
        assert sim.failure is None
        assert sim.controller.members.incoming is None
        assert not sim.controller.is_stopping


# Scaling.


@in_virtual_time
async def test_one_that_comes_back_waits_for_the_one_that_goes() -> None:
    """Down and up again while the last one takes its time: never two of a name."""
    lives = script({"web.1": [Life(stopping_takes=8)]})
    async with open_simulation(app(), lives) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sim.controller.scale, {"web": 1})
            await trio.sleep(1)
            nursery.start_soon(sim.controller.scale, {"web": 2})
        assert trio.current_time() == 18.25
        assert sim.started[-1] == (18, "web.1")
        await sim.check_picture()


@in_virtual_time
async def test_a_scaled_service_touches_no_survivor() -> None:
    async with open_simulation(app()) as sim:
        await sim.controller.wait_ready()
        await sim.controller.scale({"web": 5})
        await sim.controller.scale({"web": 1})
        await sim.controller.scale({"web": 0})
        await sim.controller.scale({"web": 2})
        assert sim.running == ["db.0", "web.0", "web.1"]
        assert sim.child("db.0").incarnation == 1
        assert [words for _, words in sim.events(ServiceScaled)] == [
            "web: scaled from 2 to 5",
            "web: scaled from 5 to 1",
            "web: scaled from 1 to 0",
            "web: scaled from 0 to 2",
        ]
        await sim.check_picture()


# It is given up.


@in_virtual_time
async def test_a_reload_that_does_not_come_to_an_end_can_be_given_up() -> None:
    lives = script({"web.0/2": [Life(ready_after=NEVER)]})
    web = {"count": 1, "startup_timeout": None, "overlap": False}
    async with open_simulation(app(**web), lives) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_fail, sim, changed(**web))
            await trio.sleep(1000)
            assert sim.running == ["db.0", "web.0/2"]
            await sim.controller.abort_reload()
        assert sim.running == ["db.0", "web.0"]
        assert set(sim.states.values()) == {State.READY}
        assert [words for _, words in sim.events(ReloadFailed)] == [
            "controller: reload failed; generation 1 keeps running: aborted"
        ]
        await sim.check_picture()
        await sim.controller.reload(changed(**web))
        assert sim.running == ["db.0", "web.0/2"]


@in_virtual_time
async def test_so_can_one_that_waits_for_the_old_to_end() -> None:
    lives = script({"web.0": [Life(is_stubborn=True)]})
    web = {"count": 1, "stop_timeout": 100, "overlap": False}
    async with open_simulation(app(**web), lives) as sim:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_fail, sim, app(**web, state={"a": 1}))
            await trio.sleep(1)
            await sim.controller.abort_reload()
        assert trio.current_time() == 110.25
        assert sim.running == ["db.0", "web.0"]
        assert sim.child("web.0").state is State.READY


@in_virtual_time
async def test_what_is_over_or_almost_so_cannot_be_given_up() -> None:
    lives = script({"web.0": [Life(stopping_takes=5)]})
    async with open_simulation(app(count=1), lives) as sim:
        await trio.sleep(10)
        with pytest.raises(UnavailableError, match="no reload is in progress"):
            await sim.controller.abort_reload()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sim.controller.reload, changed(count=1))
            await trio.sleep(1)
            with pytest.raises(UnavailableError, match="too late"):
                await sim.controller.abort_reload()
        assert sim.running == ["db.0", "web.0/2"]


# What failed before may fail.

CRASH = Life(ready_after=NEVER, exits_after=0.1, returncode=3)


def with_bad(**web: Any) -> Application:
    """A service that crashes, one that waits for it, and one that does neither."""
    return Application(
        [
            service("bad"),
            service("needs", depends_on={"bad": "ready"}),
            service("web", **web),
        ]
    )


@in_virtual_time
async def test_a_crash_loop_is_not_held_against_the_new_generation() -> None:
    """Nor that something waits for it: the reload that mends others is possible."""
    lives = script({"bad.0": [CRASH] * 999, "bad.0/2": [CRASH] * 999})
    async with open_simulation(with_bad(), lives) as sim:
        await trio.sleep(20)

        plan = await sim.controller.reload(with_bad(stop_timeout=9))

        assert plan.not_ready == {
            "bad.0": "exit code 3, 2 times in a row",
            "needs.0": "waiting for bad to be ready",
        }
        assert "web.0/2" in sim.running
        assert "web.0" not in sim.running
        assert len(sim.events(WorkerStillFailing)) == 2
        await trio.sleep(30)
        bad = sim.controller.children["bad.0"]
        assert (bad.plan.generation, bad.restarts > 3) == (2, True)
        await sim.check_picture()


@in_virtual_time
async def test_a_crash_loop_that_the_reload_ends_is_waited_for() -> None:
    lives = script({"bad.0": [CRASH] * 999, "bad.0/2": [Life(ready_after=3)]})
    async with open_simulation(with_bad(), lives) as sim:
        await trio.sleep(20)

        plan = await sim.controller.reload(with_bad(stop_timeout=9))

        assert plan.not_ready == {}
        assert sim.running == ["bad.0/2", "needs.0/2", "web.0/2"]
        assert sim.events(WorkerStillFailing) == []


@in_virtual_time
async def test_a_failed_job_is_not_held_against_the_new_generation() -> None:
    def app(**web: Any) -> Application:
        return Application([service("job", restart="never"), service("web", **web)])

    lives = script({"job.0": [CRASH], "job.0/2": [CRASH]})
    async with open_simulation(app(), lives) as sim:
        await trio.sleep(20)
        plan = await sim.controller.reload(app(stop_timeout=9))
        assert plan.not_ready == {"job.0": "exit code 3"}
        assert sim.running == ["web.0/2"]


@in_virtual_time
async def test_one_crash_before_the_reload_excuses_nothing() -> None:
    lives = script({"bad.0": [CRASH], "bad.0/2": [CRASH]})
    async with open_simulation(with_bad(), lives) as sim:
        await trio.sleep(20)
        await fail_to_reload(sim, with_bad(stop_timeout=9), "bad.0 of the new")


@in_virtual_time
async def test_a_healthy_dependent_of_a_crash_loop_is_not_given_up() -> None:
    """It runs since before that crashed: the new one could not be started."""
    fine = Life(exits_after=15, returncode=3)
    lives = script({"bad.0": [fine, *[CRASH] * 999], "bad.0/2": [CRASH] * 99})
    async with open_simulation(with_bad(), lives) as sim:
        await trio.sleep(40)
        assert "needs.0" in sim.running
        await fail_to_reload(sim, with_bad(stop_timeout=9), "needs.0 .* is waiting for")
        assert "needs.0" in sim.running


@in_virtual_time
async def test_a_limit_that_is_reached_on_probation_fails_the_reload_only() -> None:
    """The new declaration has a restart limit: what failed before is past it."""

    def limited(**bad: Any) -> Application:
        return Application([service("bad", **bad), service("web")])

    lives = script({"bad.0": [CRASH] * 999, "bad.0/2": [CRASH] * 999})
    async with open_simulation(limited(), lives) as sim:
        await trio.sleep(20)
        plan = await sim.controller.reload(limited(intensity=0))
        assert plan.not_ready == {"bad.0": "exit code 3"}
        assert "web.0/2" in sim.running


@in_virtual_time
async def test_a_reload_says_which_workers_it_kept_are_not_ready() -> None:
    """In a backoff, or waiting for one that is."""
    lives = script({"bad.0": [CRASH] * 999})
    async with open_simulation(with_bad(), lives) as sim:
        await trio.sleep(20)
        plan = await sim.controller.reload(with_bad(), changed_only=True)
        assert set(plan.not_ready) == {"bad.0", "needs.0"}
        assert "exit code 3" in plan.not_ready["bad.0"]
        assert "bad.0/2" not in sim.running
