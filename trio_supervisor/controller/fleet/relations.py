"""Track dependencies and restart groups of workers, and act on crashes in them."""

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

# Timeout of a stack dump taken before a process is stopped [s].
_EVIDENCE_WITHIN: Final = 2.0


class RelationsOwner(Protocol):
    """Callbacks of `Relations` to the controller."""

    def replace_overdue(self, child: Child) -> None:
        """Restart *child*, which reached its maximum lifetime, when permitted."""
        ...

    async def stop_escaped(self, child: Child) -> None:
        """Stop descendants of *child*'s exited process that left its process group."""
        ...

    async def dump_stacks(self, child: Child, process: Process, cause: str) -> None:
        """Save a stack dump of *process* before it is stopped for *cause*."""
        ...

    async def find_cause(self, child: Child, process: Process) -> None:
        """Find the cause of an unplanned exit of *process* from its output."""
        ...

    def exit_report_of(self, child: Child, ending: Ending) -> ExitReport:
        """Return the exit report of *child*'s last process."""
        ...

    def on_event(self, event: Event) -> None:
        """Report an event that an operator may want to know."""
        ...


@define(eq=False)
class Relations:
    """Dependencies and restart groups of all workers; see `child_spec.ChildHooks`."""

    _owner: RelationsOwner
    _nursery: Callable[[], ProtectedNursery]
    _generations: dict[Child, Generation] = field(factory=dict, init=False)
    _held: Counter[Child] = field(factory=Counter, init=False)
    """Workers held back until the others of their restart group have exited."""
    _dismissed: set[Child] = field(factory=set, init=False)
    """Workers that were replaced or removed and are never started again."""
    _on_trial: Generation | None = field(default=None, init=False)
    """New generation that has not taken over: a worker's crash fails the reload."""
    _may_fail: Collection[Child] = field(default=(), init=False)
    """Workers of that generation that may fail, as their predecessors did."""
    _both_generations: tuple[Generation, ...] = field(default=(), init=False)
    """That generation and the current one. Workers of each may wait for workers of the
    other: for kept ones, and for those that replaced a service stopped first."""

    def begin_trial(
        self, old: Generation, new: Generation, may_fail: Collection[Child]
    ) -> None:
        """Begin the trial of *new*, which is to replace *old*.

        Args:
            excused: Workers of *new* that are restarted if they crash.
        """
        self._on_trial, self._both_generations = new, (old, new)
        self._may_fail = may_fail

    def end_trial(self) -> None:
        """End the trial, whether it succeeded or failed."""
        self._on_trial, self._both_generations, self._may_fail = None, (), ()

    def assign(self, children: Iterable[Child], home: Generation) -> None:
        """Assign *children* to the generation *home*."""
        for child in children:
            self._generations[child] = home

    def dismiss(self, children: Iterable[Child]) -> None:
        """Note that *children* are about to be stopped: do not restart them."""
        self._dismissed.update(children)

    def forget(self, children: Iterable[Child]) -> None:
        """Forget *children*, which have exited for good."""
        for child in children:
            self._dismissed.discard(child)
            self._generations.pop(child, None)
            self._held.pop(child, None)

    def generation_of(self, child: Child) -> Generation | None:
        """Return the generation that *child* belongs to."""
        return self._generations.get(child)

    def on_change(self, child: Child) -> None:
        """Wake the workers that wait for *child*."""
        for home in {self._generations.get(child), *self._both_generations}:
            if home is None:
                continue
            for name in home.waiting.get(child.plan.service, ()):
                unit = home.units.get(name)
                for other in unit.children if unit else ():
                    other.check_again()

    # Hooks called by a child.

    def missing_needs_of(self, child: Child) -> str:
        """Describe the missing dependencies of *child*; empty: none."""
        if self._held[child]:
            return "the other workers of its group to exit"
        home = self._generations.get(child)
        missing = home.unmet(child.plan.service) if home else ()
        return ", ".join(f"{name} ({condition})" for name, condition in missing)

    def failed_needs_of(self, child: Child) -> str:
        """Describe the failed dependencies of *child*: waiting for them is pointless.

        They have exited for good or are in a crash loop. Empty if *child* is not
        waiting, or its dependencies are starting.
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
        """Return why *child* is unavailable to its dependents; empty: it is not."""
        if child.is_in_crash_loop:
            return f"is in backoff ({child.trouble})"
        if child.is_wanted or not child.is_down:
            return self.failed_needs_of(child)
        is_done = child.standing is Standing.EXITED_OK
        return "" if is_done else f"is {child.state.value}"

    def review(self, child: Child, ending: Ending, decision: Decision) -> Decision:
        """Count a crash against the restart groups of *child*, and act for them."""
        home = self._generations.get(child)
        if home is None or isinstance(decision, Leave):
            return decision
        if child in self._dismissed:
            return Leave()
        if home is self._on_trial:
            if child in self._may_fail and isinstance(decision, RestartAfter):
                return decision
            return Leave()  # its generation does not take over
        if ending.cause is Cause.SHORTAGE:
            return decision  # caused neither by the worker nor by its group
        if self._held[child] and isinstance(decision, RestartAfter):
            # It was to be stopped with its group, so this is no failure of the group.
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
                    # If a group failed, the crashed worker is reset as well.
                    self._restart_together(home, child, services, bool(failures))
                if isinstance(decision, GiveUp):
                    return RestartAfter(decision.delay)
                return decision

    def on_lifetime_over(self, child: Child) -> None:
        """Restart *child* when the concurrency limit permits it."""
        self._owner.replace_overdue(child)

    async def stop_escaped(self, child: Child) -> None:
        """Stop descendants of *child*'s exited process that left its process group."""
        await self._owner.stop_escaped(child)

    async def dump_stacks(self, child: Child, process: Process, cause: str) -> None:
        """Save a stack dump of *process* before it is stopped as unresponsive."""
        # It is stopped even if there are no file descriptors left for the dump.
        with suppress(OSError), trio.move_on_after(_EVIDENCE_WITHIN):
            await self._owner.dump_stacks(child, process, cause)

    async def find_cause(self, child: Child, process: Process) -> None:
        """Find the cause of an unplanned exit of *process* from its output."""
        with suppress(OSError):
            await self._owner.find_cause(child, process)

    def exit_report_of(self, child: Child, ending: Ending) -> ExitReport:
        """Return the exit report of *child*'s last process."""
        return self._owner.exit_report_of(child, ending)

    def hold(self, child: Child) -> None:
        """Hold *child* back until `release` has been called as often."""
        self._held[child] += 1

    def release(self, child: Child) -> None:
        """Undo one `hold` of *child*."""
        self._held[child] = max(0, self._held[child] - 1)
        child.check_again()

    # Restart groups.

    def _restart_together(
        self,
        home: Generation,
        crashed: Child,
        services: Sequence[str],
        is_forgiven: bool,
    ) -> None:
        """Stop all workers of *services*, then start them again.

        As in OTP, no worker of a group starts before all of them have stopped.
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
                # A worker in a backoff stays in it: otherwise two crashing workers
                # that restart each other would do so without any delay.
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
