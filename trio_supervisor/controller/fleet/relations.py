"""What workers are to each other: who waits for whom, who is restarted with whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

import trio
from attrs import define, field

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import ExitReport
from trio_supervisor.controller.events import Event, GroupFailed
from trio_supervisor.controller.fleet.generation import Generation
from trio_supervisor.controller.fleet.ordered_stop import end_each
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.order import Standing
from trio_supervisor.policy.restart import (
    Cause,
    Decision,
    Ending,
    GiveUp,
    Leave,
    RestartAfter,
)
from trio_supervisor.policy.strategy import GiveUpAll, RestartTogether
from trio_supervisor.process.child import Process
from trio_supervisor.tasks import ProtectedNursery

# What is looked at before a process is ended has to answer within this time [s].
_EVIDENCE_WITHIN: Final = 2.0


class RelationsOwner(Protocol):
    """What relations ask of the controller."""

    def replace_overdue(self, child: Child) -> None:
        """Have *child*, which lived for long enough, replaced when there is room."""
        ...

    async def stop_escaped(self, child: Child) -> None:
        """End what has left the group of the process of *child* that just ended."""
        ...

    async def dump_stacks(self, child: Child, process: Process, cause: str) -> None:
        """Keep where all of *process* stands, before it is ended for *cause*."""
        ...

    async def find_cause(self, child: Child, process: Process) -> None:
        """Find out what ended *process* on its own, where what it printed says so."""
        ...

    def exit_report_of(self, child: Child, ending: Ending) -> ExitReport:
        """Return what is left to say of the process of *child* that just ended."""
        ...

    def on_event(self, event: Event) -> None:
        """Something happened that a person may want to know."""
        ...


@define(eq=False)
class Relations:
    """The company of all workers: see `plan.ChildHooks`."""

    _owner: RelationsOwner
    _nursery: Callable[[], ProtectedNursery]
    _generations: dict[Child, Generation] = field(factory=dict, init=False)
    _held: Counter[Child] = field(factory=Counter, init=False)
    """Not to be started until others have ended that are restarted with them."""
    _dismissed: set[Child] = field(factory=set, init=False)
    """Never to be started again: others are in their place, or none are to be."""
    _on_trial: Generation | None = field(default=None, init=False)
    """The generation of which no worker may fail, for it is not in charge yet."""
    _may_fail: Collection[Child] = field(default=(), init=False)
    """Of that generation: those that may fail, for those before them failed, too."""
    _both_generations: tuple[Generation, ...] = field(default=(), init=False)
    """That one and the one in charge: workers of each may wait for those of the other,
    for what is kept, and for what has taken the place of what gave way."""

    def begin_trial(
        self, old: Generation, new: Generation, may_fail: Collection[Child]
    ) -> None:
        """Say that *new* tries to take the place of *old*.

        Args:
            excused: Workers of *new* that are restarted if they crash.
        """
        self._on_trial, self._both_generations = new, (old, new)
        self._may_fail = may_fail

    def end_trial(self) -> None:
        """Say that it has, or has failed."""
        self._on_trial, self._both_generations, self._may_fail = None, (), ()

    def assign(self, children: Iterable[Child], home: Generation) -> None:
        """Say that *children* belong to *home* from now on."""
        for child in children:
            self._generations[child] = home

    def dismiss(self, children: Iterable[Child]) -> None:
        """Say that *children* are about to be ended: a crash of theirs is their end."""
        self._dismissed.update(children)

    def forget(self, children: Iterable[Child]) -> None:
        """Say that *children* are gone for good."""
        for child in children:
            self._dismissed.discard(child)
            self._generations.pop(child, None)
            self._held.pop(child, None)

    def generation_of(self, child: Child) -> Generation | None:
        """Return the generation that *child* belongs to."""
        return self._generations.get(child)

    def on_change(self, child: Child) -> None:
        """Have those look again who wait for *child*."""
        for home in {self._generations.get(child), *self._both_generations}:
            if home is None:
                continue
            for name in home.waiting.get(child.plan.service, ()):
                unit = home.units.get(name)
                for other in unit.children if unit else ():
                    other.check_again()

    # What a child asks.

    def missing_needs_of(self, child: Child) -> str:
        """Return what keeps *child* from being started, in words."""
        if self._held[child]:
            return "the other workers of its group to exit"
        home = self._generations.get(child)
        missing = home.unmet(child.plan.service) if home else ()
        return ", ".join(f"{name} ({condition})" for name, condition in missing)

    def failed_needs_of(self, child: Child) -> str:
        """Return why to wait for *child* no more: what it needs is not there.

        That has come to rest, or is in a crash loop. Empty if *child* does not wait, or
        what it needs is on its way.
        """
        home = self._generations.get(child)
        if home is None or child.state is not State.WAITING or self._held[child]:
            return ""
        for name, condition in home.unmet(child.plan.service):
            for other in home.unit_of(name).children:
                if problem := self._absence_of(other):
                    return f"waits for {name} ({condition}), but {other.name} {problem}"
        return ""

    def _absence_of(self, child: Child) -> str:
        """Return why *child* will not be there for those that need it, if so."""
        if child.is_in_crash_loop:
            return f"is in backoff ({child.trouble})"
        if child.is_wanted or not child.is_down:
            return self.failed_needs_of(child)
        is_done = child.standing is Standing.EXITED_OK
        return "" if is_done else f"is {child.state.value}"

    def review(self, child: Child, ending: Ending, decision: Decision) -> Decision:
        """Count a crash against the groups around it, and act for them."""
        home = self._generations.get(child)
        if home is None or isinstance(decision, Leave):
            return decision
        if child in self._dismissed:
            return Leave()
        if home is self._on_trial:
            if child in self._may_fail and isinstance(decision, RestartAfter):
                return decision
            return Leave()  # its generation does not come to power
        if ending.cause is Cause.SHORTAGE:
            return decision  # no fault of the worker, nor of its group
        if self._held[child] and isinstance(decision, RestartAfter):
            # It was about to be ended with its group: no failure of that by itself.
            return RestartAfter(0.0)
        outcome = home.tree.failed(
            child.plan.service,
            now=trio.current_time(),
            is_exhausted=isinstance(decision, GiveUp),
        )
        match outcome:
            case GiveUpAll(failures):
                if isinstance(decision, GiveUp):
                    return decision
                problem = f"{failures[0]}; last crash: {child.name}"
                return GiveUp(0, 0.0, problem)
            case RestartTogether(services, failures):
                for failure in failures:
                    event = GroupFailed(
                        name=failure.group, problem=str(failure), services=services
                    )
                    self._owner.on_event(event)
                if services:
                    # Where a group failed, also the one that crashed begins afresh.
                    self._restart_together(home, child, services, bool(failures))
                if isinstance(decision, GiveUp):
                    return RestartAfter(decision.delay)
                return decision

    def on_lifetime_over(self, child: Child) -> None:
        """Have *child* replaced when there is room."""
        self._owner.replace_overdue(child)

    async def stop_escaped(self, child: Child) -> None:
        """End what has left the group of the process of *child* that just ended."""
        await self._owner.stop_escaped(child)

    async def dump_stacks(self, child: Child, process: Process, cause: str) -> None:
        """Ask it where it stands, before it is ended for its state."""
        # It is ended whether or not there are descriptors to look at it.
        with suppress(OSError), trio.move_on_after(_EVIDENCE_WITHIN):
            await self._owner.dump_stacks(child, process, cause)

    async def find_cause(self, child: Child, process: Process) -> None:
        """Find out what ended *process* on its own, where what it printed says so."""
        with suppress(OSError):
            await self._owner.find_cause(child, process)

    def exit_report_of(self, child: Child, ending: Ending) -> ExitReport:
        """Return what is left to say of the process of *child* that just ended."""
        return self._owner.exit_report_of(child, ending)

    def hold(self, child: Child) -> None:
        """Keep *child* from being started, until as many `release` it."""
        self._held[child] += 1

    def release(self, child: Child) -> None:
        """Hold *child* no more."""
        self._held[child] = max(0, self._held[child] - 1)
        child.check_again()

    # Groups.

    def _restart_together(
        self,
        home: Generation,
        crashed: Child,
        services: Sequence[str],
        is_forgiven: bool,
    ) -> None:
        """End all workers of *services*, then let them begin afresh.

        As in OTP nothing of a group is started before all that is to end has ended.
        """
        units = [home.units[name] for name in services if name in home.units]
        children = [c for unit in units for c in unit.children if c.is_wanted]
        held = dict.fromkeys([*children, crashed], True) | {crashed: is_forgiven}
        for child in held:
            self.hold(child)
        self._nursery().start_soon(self._cycle, home, crashed, children, held)

    async def _cycle(
        self,
        home: Generation,
        crashed: Child,
        children: Sequence[Child],
        held: Mapping[Child, bool],
    ) -> None:
        async def end(_: str, group: Sequence[Child]) -> None:
            for child in group:
                # One that is in a backoff stays there: two that crash and are
                # restarted with each other would crash at full speed.
                if child.is_wanted and child.state is not State.BACKOFF:
                    child.request_restart(f"{crashed.name} crashed", Cause.GROUP)
            for child in group:
                await child.wait_no_process()

        try:
            leaving = [child for child in children if child is not crashed]
            await end_each(leaving, home.needs, home.rank, end)
        finally:
            for child, is_forgiven in held.items():
                child.reset_start(is_forgiven=is_forgiven)
            for child in held:
                self.release(child)
