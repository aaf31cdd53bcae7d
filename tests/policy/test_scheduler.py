"""Test decisions on operations that meet, each as a history and what comes of it."""

from __future__ import annotations

import pytest

from tests.kits.fleet_world import FakeLinks, FakeMember, World, stop_of
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.operations import (
    GroupRestart,
    Order,
    RestartOperation,
    StartOperation,
    TrialOperation,
)
from trio_supervisor.policy.order import Needs
from trio_supervisor.policy.scheduler import hopeless_wait, obstacle_of

STACK: Needs = {"db": {}, "web": {"db": "ready"}}


def world_of(needs: Needs, count: int = 1, *, is_up: bool = True) -> World:
    """Return a world of services with *count* workers each, all of them ready."""
    members = {
        name: [FakeMember(f"{name}.{i}", name) for i in range(count)] for name in needs
    }
    world = World(FakeLinks(needs, members))
    if is_up:
        world.calm()
    world.history.clear()
    return world


def member(world: World, name: str) -> FakeMember:
    [found] = [each for each in world.everyone if each.name == name]
    return found


def rolling(world: World, *names: str, limit: int | None = 1) -> RestartOperation:
    return RestartOperation(
        [each for each in world.everyone if each.service in names],
        world.links.needs,
        world.links,
        order=Order.TOGETHER if limit is None else Order.GRADUAL,
        max_unavailable=limit,
    )


def group(world: World, crashed: str, *others: str) -> GroupRestart:
    links = world.links
    mates = [member(world, name) for name in others]
    return GroupRestart(member(world, crashed), mates, links.needs, links.rank, False)


def play(world: World, *steps: str) -> None:
    """Let things happen: ``"web.0 crash"``."""
    for step in steps:
        name, what = step.split()
        if what == "retry":
            member(world, name).is_due = True
            world.history.append(step)
            world.settle()
        else:
            world.happen(member(world, name), what)


def test_start_begins_with_what_is_needed() -> None:
    world = world_of(STACK, is_up=False)
    assert obstacle_of(world.table, member(world, "web.0")) == "db to be ready"
    play(world, "db.0 become_ready")
    assert world.history == ["db.0 become_ready", "web.0 starts"]


def test_stop_ends_dependents_first() -> None:
    world = world_of(STACK)
    running = world.begin(stop_of(world.links, [member(world, "db.0")]))
    play(world, "web.0 exit", "db.0 exit")
    assert world.history == [
        "begin StopOperation db.0 web.0",
        "web.0 is asked to stop",
        "web.0 exit",
        "db.0 is asked to stop",
        "db.0 exit",
        "end StopOperation",
    ]
    assert world.ended == {running: ""}


def test_restart_together_stops_and_starts_in_order() -> None:
    world = world_of(STACK)
    world.begin(rolling(world, "db", "web", limit=None))
    play(world, "web.0 exit", "db.0 exit", "db.0 become_ready", "web.0 become_ready")
    assert world.history[1:] == [
        "web.0 is asked to restart",
        "web.0 exit",
        "db.0 is asked to restart",
        "db.0 exit",
        "db.0 starts",
        "db.0 become_ready",
        "web.0 starts",
        "web.0 become_ready",
        "end RestartOperation",
    ]


def test_rolling_restart_takes_one_after_the_other() -> None:
    world = world_of({"web": {}}, count=2)
    world.begin(rolling(world, "web"))
    play(world, "web.0 exit")
    assert "web.1 is asked to restart" not in world.history
    play(world, "web.0 become_ready")
    assert world.history[-1] == "web.1 is asked to restart"


def test_rolling_restart_counts_a_crashed_worker_as_away() -> None:
    world = world_of({"web": {}}, count=2)
    play(world, "web.1 crash")
    world.begin(rolling(world, "web"))
    assert "web.1 is asked to restart" in world.history
    assert "web.0 is asked to restart" not in world.history


def test_crash_of_what_is_needed_during_rolling_restart_ends_it_with_the_reason() -> (
    None
):
    """The dependent keeps its place: nothing else is taken away meanwhile."""
    world = world_of(STACK, count=2)
    running = world.begin(rolling(world, "db", "web"))
    play(world, "db.0 exit", "db.0 crash")
    assert world.ended == {running: "crashed"}
    assert member(world, "web.0").state is State.READY
    later = world.begin(rolling(world, "web"))
    play(world, "db.0 retry", "db.0 become_ready", "web.0 exit", "web.0 become_ready")
    world.calm()
    assert world.ended[later] == ""


def test_trial_of_new_generation_waits_beside_a_rolling_restart() -> None:
    """Of the generation that it replaces, while something needed there is down."""
    world = world_of(STACK, count=2)
    new = world_of(STACK, is_up=False)
    old_restart = world.begin(rolling(world, "db", "web"))
    play(world, "db.0 exit", "db.1 crash")
    for each in new.everyone:  # both generations are of one fleet
        world.table.links[each] = new.links
    trial = world.begin(TrialOperation(new.everyone, new.links))
    play(new, "db.0 become_ready")
    world.settle()
    assert trial in world.table.operations
    play(new, "web.0 become_ready")
    world.settle()
    assert world.ended[trial] == ""
    assert old_restart in world.table.operations


def test_trial_fails_with_the_worker_that_exited() -> None:
    world = world_of(STACK, is_up=False)
    trial = world.begin(TrialOperation(world.everyone, world.links))
    play(world, "db.0 fail")
    assert world.ended[trial] == "failed its trial"


def test_trial_excuses_what_failed_before() -> None:
    world = world_of(STACK, is_up=False)
    excused = [member(world, "db.0"), member(world, "web.0")]
    trial = world.begin(TrialOperation(excused, world.links, excused))
    play(world, "db.0 crash")
    assert world.ended[trial] == ""


def test_scale_down_of_a_worker_that_a_group_restart_waits_for() -> None:
    """It is gone when its process is, and the group starts without it."""
    world = world_of({"a": {}, "b": {}}, count=2)
    play(world, "a.0 crash")
    world.begin(group(world, "a.0", "a.1", "b.0", "b.1"))
    leaving = member(world, "b.1")
    leaving.is_retired = True
    leaving.ask_stop()
    world.settle()
    play(world, "a.1 exit", "b.0 exit")
    assert "a.1 starts" not in world.history
    play(world, "b.1 exit")
    started = {line for line in world.history if line.endswith("starts")}
    assert started == {"a.1 starts", "b.0 starts"}
    play(world, "a.0 retry")
    assert world.history[-1] == "a.0 starts"


def test_stop_of_what_a_starting_job_needs_stops_the_job_first() -> None:
    world = world_of({"db": {}, "job": {"db": "started"}})
    job = member(world, "job.0")
    job.ask_stop()
    world.settle()
    play(world, "job.0 exit")
    job.ask_restart()
    starting = world.begin(StartOperation([(job, 2)]))
    world.begin(stop_of(world.links, [member(world, "db.0")]))
    assert world.history[-1] == "job.0 is asked to stop"
    play(world, "job.0 exit")
    assert world.ended[starting] == "job.0 is not ready: stopped, exit code 1"
    assert world.history[-1] == "db.0 is asked to stop"


def test_dependent_started_during_a_stop_is_stopped_as_well() -> None:
    world = world_of(STACK)
    stopping = world.begin(stop_of(world.links, [member(world, "db.0")]))
    member(world, "web.0").ask_restart()
    world.settle()
    assert "db.0 is asked to stop" not in world.history
    play(world, "web.0 exit", "db.0 exit")
    assert world.ended[stopping] == ""
    assert not member(world, "web.0").is_wanted


@pytest.mark.parametrize("limit", [None, 1])
def test_worker_stopped_while_it_waits_for_its_turn_is_left_out(
    limit: int | None,
) -> None:
    world = world_of(STACK)
    running = world.begin(rolling(world, "db", "web", limit=limit))
    waiting = "db.0" if limit is None else "web.0"
    member(world, waiting).ask_stop()
    world.settle()
    world.calm()
    reason = "web.0 is waiting for db to be ready, but db.0 is stopped"
    assert world.ended[running] == (reason if limit is None else "")
    assert member(world, waiting).state is State.STOPPED


def test_one_limit_holds_for_all_restarts() -> None:
    world = world_of({"a": {}, "b": {}})
    world.table.max_concurrently = 1
    first = world.begin(rolling(world, "a"))
    world.begin(rolling(world, "b"))
    world.cancel(first)
    assert "b.0 is asked to restart" not in world.history
    play(world, "a.0 exit", "a.0 become_ready")
    assert world.history[-1] == "b.0 is asked to restart"


def test_restart_that_cannot_be_completed_takes_no_place() -> None:
    """Its caller has gone away, and what it needs has failed."""
    world = world_of({**STACK, "log": {}})
    world.table.max_concurrently = 1
    world.cancel(world.begin(rolling(world, "web")))
    play(world, "db.0 fail", "web.0 exit")
    world.begin(rolling(world, "log"))
    assert world.history[-1] == "log.0 is asked to restart"


def test_shutdown_ends_restarts_and_trials() -> None:
    world = world_of(STACK)
    restart = world.begin(rolling(world, "db", "web"))
    trial = world.begin(TrialOperation(world.everyone, world.links, is_stable=True))
    world.table.is_closing = True
    world.settle()
    reason = "the controller is shutting down"
    assert world.ended == {restart: reason, trial: reason}


def test_wait_for_what_exited_for_good_is_hopeless() -> None:
    world = world_of(STACK, is_up=False)
    play(world, "db.0 fail")
    starting = world.begin(StartOperation([(member(world, "web.0"), 1)]))
    reason = "is waiting for db to be ready, but db.0 is failed"
    assert hopeless_wait(world.table, member(world, "web.0")) == reason
    assert world.ended[starting] == f"web.0 {reason}"


def test_group_restart_leaves_a_worker_in_its_backoff() -> None:
    world = world_of({"a": {}, "b": {}})
    play(world, "b.0 crash", "a.0 crash")
    world.begin(group(world, "a.0", "b.0"))
    assert member(world, "b.0").state is State.BACKOFF
    assert "b.0 is asked to restart" not in world.history
