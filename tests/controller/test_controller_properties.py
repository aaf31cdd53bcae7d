"""Random applications, and whatever may happen to them, in virtual time.

The theatre looks at every start and at every planned stop: nothing is started before
what it needs, nothing is stopped before what needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import trio
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kits.controller import (
    MOVING,
    NEVER,
    Life,
    Part,
    Simulation,
    open_simulation,
    service,
)
from trio_supervisor.application import Application, Group
from trio_supervisor.controller.child.child import Child
from trio_supervisor.errors import SupervisorError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.order import CONDITIONS, Standing, describe_need
from trio_supervisor.policy.strategy import STRATEGIES
from trio_supervisor.testing import in_virtual_time

NAMES = "abcde"
Deed: TypeAlias = tuple[float, str, Any]
"""When, what, and to whom or what."""

# What goes wrong does so in the first minutes; then everything is healthy.
TROUBLE = 150.0
QUIET = 400.0
"""By then all has come to rest."""
AT_REST = frozenset({State.STOPPED, State.FAILED})

lives = st.builds(
    Life,
    can_spawn=st.sampled_from([True, True, True, False]),
    spawn_takes=st.sampled_from([0.0, 0.0, 0.5, 70.0]),
    ready_after=st.sampled_from([0.0, 0.25, 0.25, 3.0, NEVER]),
    unready_after=st.sampled_from([NEVER, NEVER, 5.0]),
    ready_again_after=st.sampled_from([5.0]),
    exits_after=st.sampled_from([NEVER, NEVER, 0.0, 1.0, 7.0]),
    returncode=st.sampled_from([0, 1, 3, -11]),
    stopping_takes=st.sampled_from([0.0, 1.0, 4.0]),
    is_stubborn=st.sampled_from([False, False, True]),
)


@frozen
class Play:
    """An application, other versions of it, and what is done with it."""

    versions: Sequence[Application]
    lives: Sequence[Life]
    deeds: Sequence[Deed]
    jobs: frozenset[str]


@st.composite
def applications(draw: st.DrawFn, jobs: frozenset[str]) -> Application:
    """Up to five services, each of which needs earlier ones, some in groups."""
    made: list[Any] = []
    for position, name in enumerate(NAMES[: draw(st.integers(2, 5))]):
        needs = {}
        for other in NAMES[:position]:
            if draw(st.integers(0, 2)) == 0:
                choice = CONDITIONS if other in jobs else CONDITIONS[:2]
                needs[other] = draw(st.sampled_from(choice))
        made.append(
            service(
                name,
                count=draw(st.integers(1, 2)),
                depends_on=needs,
                restart="on-failure" if name in jobs else "always",
                give_up_on=draw(st.sampled_from([(), (), (3,)])),
                intensity=draw(st.sampled_from([None, None, 2])),
                startup_timeout=draw(st.sampled_from([10.0, 60.0])),
                stop_timeout=5.0,
                overlap=draw(st.sampled_from([True, True, True, False])),
                max_lifetime=draw(st.sampled_from([None, None, 100.0])),
            )
        )
    cut = draw(st.integers(0, len(made)))
    strategies = st.sampled_from(STRATEGIES)
    group = Group(made[cut:], strategy=draw(strategies), intensity=None)
    services = [*made[:cut], group] if cut < len(made) else made
    return Application(
        services,
        strategy=draw(st.sampled_from(STRATEGIES[:2])),
        max_restarts_concurrently=draw(st.sampled_from([None, 1])),
    )


def _moment(timed: tuple[float, object]) -> float:
    return timed[0]


@st.composite
def plays(draw: st.DrawFn) -> Play:
    jobs = draw(st.frozensets(st.sampled_from(NAMES), max_size=2))
    versions = draw(st.lists(applications(jobs), min_size=1, max_size=3))
    whom = st.sampled_from([*NAMES, *(f"{name}.0" for name in NAMES)])
    deed = st.one_of(
        st.tuples(st.just("stop"), whom),
        st.tuples(st.just("start"), whom),
        st.tuples(st.just("restart"), whom),
        st.tuples(st.just("roll"), whom),
        st.tuples(st.just("crash"), whom),
        st.tuples(st.just("scale"), st.tuples(whom, st.integers(0, 3))),
        st.tuples(
            st.just("reload"),
            st.tuples(
                st.integers(0, len(versions) - 1),
                st.booleans(),
                st.sampled_from([None, None, 1, 2]),
            ),
        ),
    )
    moments = st.integers(0, 400).map(lambda n: n / 4 + 1 / 64)
    # One at a time: of two in the same instant either may be the first.
    deeds = draw(st.lists(st.tuples(moments, deed), max_size=10, unique_by=_moment))
    return Play(
        versions,
        draw(st.lists(lives, max_size=12)),
        sorted((moment, *what) for moment, what in deeds),
        jobs,
    )


async def do(sim: Simulation, play: Play, deed: Deed) -> None:
    """Do one thing; that it is refused, or fails, is no matter."""
    moment, what, whom = deed
    await trio.sleep_until(moment)
    controller = sim.controller
    try:
        match what:
            case "stop":
                await controller.stop(whom)
            case "start":
                await controller.start(whom)
            case "restart":
                await controller.restart(whom)
            case "roll":
                await controller.restart(whom, rolling=True)
            case "scale":
                await controller.scale({whom[0]: whom[1]})
            case "reload":
                version, changed_only, canary = whom
                await controller.reload(
                    play.versions[version],
                    changed_only=changed_only,
                    canary=canary,
                    canary_for=canary and 20.0,
                )
            case "crash":
                for child in controller.members.choose([whom]):
                    if child.process is not None:
                        sim.process(child.name).exit(1)
    except SupervisorError:
        return


def check_rest(sim: Simulation, play: Play, child: Child) -> None:
    """Whether *child* is in a state in which it may stay for ever."""
    if not child.is_wanted:
        assert child.state in AT_REST, child.name
    elif child.state is not State.READY:
        # It waits for what is not going to come: stopped, failed, or waiting as well.
        assert child.state is State.WAITING, (child.name, child.state)
        home = sim.controller.generation
        missing = home.unmet(child.plan.service)
        assert missing, f"{child.name} waits for nothing"
        awaited = ", ".join(describe_need(name, how) for name, how in missing)
        assert child.waiting_for == awaited
        for name, condition in missing:
            culprits = [
                other
                for other in home.units[name].children
                if other.state in (*AT_REST, State.WAITING)
                or (condition == "exited_ok" and other.state is State.READY)
            ]
            assert culprits, f"{child.name} waits for {name}, which runs"
    assert (child.standing is Standing.EXITED_OK) <= (not child.is_wanted)


@settings(max_examples=60, deadline=None)
@given(plays())
@partial(in_virtual_time, limit=2 * QUIET)
async def test_whatever_happens_the_declaration_is_kept(play: Play) -> None:
    left = list(play.lives)

    def life(part: Part) -> Life:
        if left and trio.current_time() < TROUBLE:
            return left.pop()
        is_job = part.service in play.jobs
        return Life(ready_after=NEVER, exits_after=1.0) if is_job else Life()

    async with open_simulation(play.versions[0], life) as sim:
        finished: list[Deed] = []

        async def run(deed: Deed) -> None:
            await do(sim, play, deed)
            finished.append(deed)

        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = QUIET
            for deed in play.deeds:
                nursery.start_soon(run, deed)
        await trio.sleep_until(QUIET)
        is_stuck = is_reload_stuck(sim)
        if is_stuck:
            await sim.controller.abort_reload()
            await sim.settle()
        if sim.controller.is_stopping:
            await sim.is_over.wait()
            assert sim.failure is not None, "nobody asked for it"
            return
        for child in sim.controller.generation.children:
            while child.state in MOVING:  # at the end of its lifetime, just now
                await child.wait_news()
        for child in sim.controller.generation.children:
            check_rest(sim, play, child)
        if not is_stuck:
            check_finished(sim, play, finished)
        sim.controller.reloader.check_idle()
        assert not sim.controller.members.leaving
        assert set(sim.running) == {
            child.name
            if child.plan.generation == 1
            else f"{child.name}/{child.plan.generation}"
            for child in sim.controller.generation.children
            if child.process is not None
        }
        await sim.check_picture()


def is_reload_stuck(sim: Simulation) -> bool:
    """Whether one waits for a job to exit that is ready instead, and stays so."""
    incoming = sim.controller.members.incoming
    return incoming is not None and any(
        child.state is State.READY
        for waiting in incoming.children
        if waiting.state is State.WAITING
        for name, condition in incoming.unmet(waiting.plan.service)
        if condition == "exited_ok"
        for child in incoming.units[name].children
    )


def check_finished(sim: Simulation, play: Play, finished: Sequence[Deed]) -> None:
    """Who asked for something has an answer, unless it waits for what will not come."""
    is_stuck = any(
        child.state is State.WAITING for child in sim.controller.generation.children
    )
    if not is_stuck:
        assert sorted(finished, key=repr) == sorted(play.deeds, key=repr)
