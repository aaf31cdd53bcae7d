"""Test that no history of operations, crashes and cancellations harms anybody.

A failing history is printed as a list of what happened; the seed that `nox -s hunt`
prints replays it.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.kits.fleet_world import FakeLinks, FakeMember, World, stop_of
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.operations import (
    GroupRestart,
    Order,
    RestartOperation,
    RunningOperation,
    StartOperation,
)
from trio_supervisor.policy.order import CONDITIONS, needs_of
from trio_supervisor.policy.scheduler import hopeless_wait

SERVICES = "abcd"


class SchedulerHistory(RuleBasedStateMachine):
    """Random applications, and random things that are done and that happen."""

    world: World

    @initialize(data=st.data())
    def make(self, data: st.DataObject) -> None:
        names = SERVICES[: data.draw(st.integers(1, len(SERVICES)))]
        needs: dict[str, dict[str, Any]] = {
            name: data.draw(
                st.dictionaries(
                    st.sampled_from(names[:place]),
                    st.sampled_from([c for c in CONDITIONS if c != "exited_ok"]),
                )
                if place
                else st.just({})
            )
            for place, name in enumerate(names)
        }
        members = {
            name: [
                FakeMember(f"{name}.{index}", name)
                for index in range(data.draw(st.integers(1, 3)))
            ]
            for name in names
        }
        self.world = World(FakeLinks(needs, members))
        self.world.table.max_concurrently = data.draw(st.none() | st.integers(1, 2))

    @property
    def running(self) -> list[RunningOperation]:
        return self.world.table.operations

    def some(self, data: st.DataObject) -> list[FakeMember]:
        """Draw all workers of one or more services, or one worker."""
        if data.draw(st.booleans()):
            return [data.draw(st.sampled_from(self.world.everyone))]
        members = self.world.links.members
        names = data.draw(st.sets(st.sampled_from(list(members)), min_size=1))
        return [member for name in members if name in names for member in members[name]]

    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        self.world.begin(stop_of(self.world.links, self.some(data)))

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        chosen = self.some(data)
        since = [(m, m.incarnation + (not m.has_process)) for m in chosen]
        for member in chosen:
            self.world.stopped.discard(member)
            if not member.is_wanted or member.is_down:
                member.ask_restart()
        self.world.begin(StartOperation(since))

    @rule(data=st.data(), limit=st.none() | st.integers(1, 2))
    def restart(self, data: st.DataObject, limit: int | None) -> None:
        is_limited = limit is not None or self.world.table.max_concurrently
        links = self.world.links
        chosen = [member for member in self.some(data) if member.is_wanted]
        self.world.begin(
            RestartOperation(
                chosen,
                links.needs,
                links,
                order=Order.GRADUAL if is_limited else Order.TOGETHER,
                max_unavailable=limit,
            )
        )

    @rule(data=st.data())
    def crash_of_a_group(self, data: st.DataObject) -> None:
        alive = [m for m in self.world.everyone if m.state is State.READY]
        if not alive:
            return
        crashed = data.draw(st.sampled_from(alive))
        others = [m for m in self.some(data) if m is not crashed and m.is_wanted]
        links = self.world.links
        crashed.crash()
        self.world.history.append(f"{crashed.name} crash")
        is_forgiven = data.draw(st.booleans())
        self.world.begin(
            GroupRestart(crashed, others, links.needs, links.rank, is_forgiven)
        )

    @precondition(lambda self: bool(self.running))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        running = data.draw(st.sampled_from(range(len(self.running))))
        if not isinstance(self.running[running].operation, GroupRestart):
            self.world.cancel(self.running[running])

    @rule(data=st.data())
    def happen(self, data: st.DataObject) -> None:
        possible = [(m, what) for m in self.world.everyone for what in _possible(m)]
        if possible:
            place = data.draw(st.sampled_from(range(len(possible))))
            self.world.happen(*possible[place])

    @rule(data=st.data())
    def delay_is_over(self, data: st.DataObject) -> None:
        away = [m for m in self.world.everyone if m.state is State.BACKOFF]
        if away:
            data.draw(st.sampled_from(away)).is_due = True
            self.world.settle()

    @invariant()
    def what_was_stopped_stays_so(self) -> None:
        for member in self.world.stopped:
            assert not member.is_wanted, f"{member.name} was stopped, and starts"

    def lacks_something(self, member: FakeMember) -> bool:
        """Return whether what *member* needs was stopped or has failed."""
        links = self.world.links
        if member.state is State.READY:
            return False
        needed = needs_of({member.service}, links.needs)
        return any(not m.is_wanted for name in needed for m in links.members[name])

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        try:
            world.calm()
            assert not world.table.operations, "an operation never ends"
            for member in world.everyone:
                if member.is_wanted and not self.lacks_something(member):
                    assert member.state is State.READY, f"{member.name} is not back"
                elif member.is_wanted:
                    assert member.state is State.WAITING
                else:
                    assert not member.has_process, f"{member.name} goes on"
            assert not world.table.held
            assert all(hopeless_wait(world.table, m) for m in world.table.under_way)
        except BaseException:
            note("\n".join(world.history))
            raise


def _possible(member: FakeMember) -> list[str]:
    match member.state:
        case State.STARTING:
            return ["become_ready", "crash", "fail"]
        case State.READY:
            return ["crash", "fail"]
        case State.STOPPING:
            return ["exit"]
        case _:
            return []


TestSchedulerHistory = SchedulerHistory.TestCase
TestSchedulerHistory.settings = settings(
    settings.default,
    max_examples=1500 if os.environ.get("HYPOTHESIS_PROFILE") == "hunt" else 300,
    stateful_step_count=40,
)
