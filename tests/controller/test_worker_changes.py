"""The supervisor's picture of the workers is the controller's, whatever happens."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest
import trio
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kits.controller import (
    NEVER,
    Life,
    Part,
    Simulation,
    open_simulation,
    script,
    service,
)
from trio_supervisor.application import Application
from trio_supervisor.controller.events import SupervisorResynchronized
from trio_supervisor.controller.supervisor_link import CHECK_INTERVAL, record_of
from trio_supervisor.errors import SupervisorError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.supervisor.status_rows import StatusRows
from trio_supervisor.testing import in_virtual_time

Step: TypeAlias = tuple[str, Any]

# What is gathered before it is told, and the way through the streams [s].
TOLD_WITHIN = 0.02


def application(services: str = "ab") -> Application:
    """Return services that need those before them, and do not connect."""
    made = [
        service(
            name,
            count=1 + (name == "b"),
            depends_on=dict.fromkeys(services[:index], "ready"),
        )
        for index, name in enumerate(services)
    ]
    return Application(made)


def registry_of(sim: Simulation) -> Any:
    """Return the registry of the supervisor of the moment."""
    return sim.servers[-1].registry


def check_truth(sim: Simulation) -> None:
    """All that is known of each worker is what the controller has."""
    controller = sim.controller
    truth = {
        (child.name, child.plan.generation): record_of(
            child, counts=controller.counts(child)
        )
        for child in controller.everyone()
    }
    known = registry_of(sim).all_records
    assert set(known) == set(truth)
    for key, record in truth.items():
        # The reason is told with the start for which it is.
        assert evolve(known[key], reason="") == evolve(record, reason=""), key


async def kill_supervisor(sim: Simulation) -> None:
    """End the supervisor, and wait until another one knows everything."""
    process: Any = sim.controller.supervisor.process
    if process is not None:
        process.exit(1)
        await trio.testing.wait_all_tasks_blocked()
    while not sim.controller.link.is_connected:
        await sim.controller.readiness.wait_news()
    await trio.sleep(TOLD_WITHIN)


@in_virtual_time
async def test_a_failed_reload_in_which_the_supervisor_died_leaves_no_row() -> None:
    lives = script({"a.0/2": [Life(ready_after=NEVER, exits_after=5.0, returncode=1)]})
    async with open_simulation(application(), lives) as sim:
        await trio.sleep(5)
        async with trio.open_nursery() as nursery:

            async def reload() -> None:
                with pytest.raises(SupervisorError):
                    await sim.controller.reload(application())

            nursery.start_soon(reload)
            await trio.sleep(1)
            await kill_supervisor(sim)
            generations = {key[1] for key in registry_of(sim).all_records}
            assert generations == {1, 2}
        await trio.sleep(TOLD_WITHIN)
        rows = StatusRows(registry_of(sim)).statuses(0.0)
        assert [row["name"] for row in rows] == ["a.0", "b.0", "b.1"]
        check_truth(sim)


@in_virtual_time
async def test_a_worker_that_comes_or_goes_is_not_waited_for() -> None:
    lives = script({"c.0/2": [Life(ready_after=NEVER, exits_after=5.0, returncode=1)]})
    async with open_simulation(application("a"), lives) as sim:
        await trio.sleep(5)
        async with trio.open_nursery() as nursery:

            async def reload() -> None:
                with pytest.raises(SupervisorError):
                    await sim.controller.reload(application("ac"))

            nursery.start_soon(reload)
            await trio.sleep(1)
            records = registry_of(sim).all_records
            counted = {key for key, record in records.items() if record.counts}
            assert counted == {("a.0", 1)}
            assert set(records) == {("a.0", 1), ("a.0", 2), ("c.0", 2)}
        await trio.sleep(TOLD_WITHIN)
        assert list(registry_of(sim).all_records) == [("a.0", 1)]


@in_virtual_time
async def test_a_worker_scaled_away_and_back_is_shown_until_the_old_one_is_gone() -> (
    None
):
    async with open_simulation(
        application("a"), lambda _: Life(stopping_takes=4.0)
    ) as sim:
        await sim.controller.scale({"a": 2})
        pid = sim.process("a.1").pid
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sim.controller.scale, {"a": 1})
            await trio.sleep(1)
            nursery.start_soon(sim.controller.scale, {"a": 2})
            await trio.sleep(1)
            assert registry_of(sim).all_records["a.1", 1].process_id == pid
        await trio.sleep(TOLD_WITHIN)
        assert registry_of(sim).all_records["a.1", 1].process_id != pid
        check_truth(sim)


@pytest.mark.parametrize("damage", ["lost", "invented", "changed", "unapplied"])
@in_virtual_time
async def test_a_picture_that_differs_is_restored_and_told_once(damage: str) -> None:
    async with open_simulation(application()) as sim:
        await trio.sleep(1)
        server, registry = sim.servers[-1], registry_of(sim)
        record = registry._all["a.0", 1]
        match damage:
            case "lost":
                del registry._all["a.0", 1]
            case "invented":
                ghost = evolve(record, generation=7)
                registry._all[ghost.key] = ghost
            case "changed":
                registry._all[record.key] = evolve(record, restarts=9)
            case "unapplied":
                server._controller_calls._updates._sequence = 0
                sim.process("b.0").exit(1)
                await trio.sleep(TOLD_WITHIN)
                assert not registry.is_informed, "what may be wrong is not told"
        await trio.sleep(CHECK_INTERVAL + 1)
        assert registry.is_informed
        check_truth(sim)
        assert len(sim.events(SupervisorResynchronized)) == 1
        await trio.sleep(10 * CHECK_INTERVAL)
        assert len(sim.events(SupervisorResynchronized)) == 1


@in_virtual_time
async def test_an_unsaid_change_is_told_at_the_next_check() -> None:
    async with open_simulation(application()) as sim:
        await trio.sleep(1)
        sim.child("a.0").last_line = "printed after all"
        await trio.sleep(CHECK_INTERVAL)
        check_truth(sim)
        assert not sim.events(SupervisorResynchronized)


@in_virtual_time
async def test_hundreds_of_workers_come_in_parts() -> None:
    async with open_simulation(Application([service("a", count=450)])) as sim:
        await trio.sleep(5)
        await kill_supervisor(sim)
        assert len(registry_of(sim).all_records) == 450
        check_truth(sim)


lives = st.builds(
    Life,
    can_spawn=st.sampled_from([True, True, False]),
    ready_after=st.sampled_from([0.0, 0.25, 3.0, NEVER]),
    exits_after=st.sampled_from([NEVER, NEVER, 0.0, 2.0]),
    returncode=st.sampled_from([0, 1]),
    stopping_takes=st.sampled_from([0.0, 2.0]),
)
steps = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, 0.25, 1.0, 7.0])),
    st.tuples(st.just("kill_supervisor"), st.none()),
    st.tuples(st.just("reload"), st.sampled_from(["a", "ab", "abc", "bc"])),
    st.tuples(st.just("crash"), st.sampled_from("abc")),
    st.tuples(st.just("stop"), st.sampled_from("abc")),
    st.tuples(st.just("start"), st.sampled_from("abc")),
    st.tuples(st.just("scale"), st.tuples(st.sampled_from("abc"), st.integers(0, 3))),
    st.tuples(st.just("abort"), st.none()),
)


async def do(sim: Simulation, step: Step) -> None:
    """Begin one thing; that it is refused, or fails, is no matter."""
    controller, (what, value) = sim.controller, step
    try:
        match what:
            case "reload":
                await controller.reload(application(value))
            case "crash":
                for child in controller.members.choose([value]):
                    if child.process is not None:
                        sim.process(child.name).exit(1)
            case "stop":
                await controller.stop(value)
            case "start":
                await controller.start(value)
            case "scale":
                await controller.scale({value[0]: value[1]})
            case "abort":
                await controller.abort_reload()
    except SupervisorError:
        return


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=12), st.lists(lives, max_size=8))
@in_virtual_time
async def test_whatever_happens_the_picture_is_the_truth(
    steps: list[Step], lives: list[Life]
) -> None:
    """A moment after each step, and in the middle of whatever is under way."""
    left = list(lives)

    def life(part: Part) -> Life:
        return left.pop() if left and part.generation > 1 else Life()

    async with open_simulation(application(), life) as sim:
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            for step in steps:
                if step[0] == "wait":
                    await trio.sleep(step[1])
                elif step[0] == "kill_supervisor":
                    await kill_supervisor(sim)
                else:
                    nursery.start_soon(do, sim, step)
                await trio.sleep(TOLD_WITHIN)
                if sim.controller.is_stopping:
                    break
                if sim.controller.link.is_connected:
                    check_settled(sim)
            nursery.cancel_scope.cancel()
        assert not sim.events(SupervisorResynchronized)


def check_settled(sim: Simulation) -> None:
    """The same as `check_truth`, of those that nothing has happened to just now."""
    controller, now = sim.controller, trio.current_time()
    if all(moment < now - TOLD_WITHIN for moment, _ in sim.said[-1:]):
        check_truth(sim)
    waits = any(
        child.state is not State.STOPPED and not child.is_stable
        for child in controller.generation.children
    )
    registry = registry_of(sim)
    assert not (waits and registry.is_informed and registry._all_ready())
