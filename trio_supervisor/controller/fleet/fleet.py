"""Carry out operations on workers: what `policy.scheduler.decide` says, in one task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.application import AnyService
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.exit_messages import lifetime_text
from trio_supervisor.controller.fleet.crash_review import CrashReview
from trio_supervisor.controller.fleet.generation import Generation
from trio_supervisor.errors import UnavailableError
from trio_supervisor.policy.operations import (
    Action,
    AlreadyRestarted,
    Failed,
    Finished,
    FleetTable,
    GroupRestart,
    Joined,
    Member,
    Operation,
    Order,
    RestartOperation,
    RestartWorker,
    RunningOperation,
    StopOperation,
    StopWorker,
    Succeeded,
)
from trio_supervisor.policy.order import Needs
from trio_supervisor.policy.restart import Cause, Decision, Ending
from trio_supervisor.policy.scheduler import (
    decide,
    held_members,
    is_over,
    obstacle_of,
)

_NO_NEEDS: Final[Needs] = {}


@define(eq=False)
class Outcome:
    """How an operation ends."""

    reason: str | None = None
    """Why it failed; None: it did not."""
    stopped: list[Child] = field(factory=list)
    """Workers that it asked to stop, in this order."""
    is_known: trio.Event = field(factory=trio.Event)


@define(eq=False)
class Fleet:
    """All workers of all generations, and the operations in progress.

    Implements `child_spec.Permission` for them.
    """

    crashes: CrashReview
    """What follows a crash: restart groups, and the trial of a new generation."""
    _retire: Callable[[Child, Cause, str], None]
    """Stops a worker for good."""
    _lost_code: Callable[[Child], str]
    """Returns why a worker could not start again after a stop; empty: it could."""
    table: FleetTable = field(factory=FleetTable, init=False)
    generations: dict[Child, Generation] = field(factory=dict, init=False)
    both_generations: tuple[Generation, ...] = field(default=(), init=False)
    """During a reload, the current generation and the new one. Workers of each may wait
    for workers of the other: for kept ones, and for those that replaced a service
    stopped first."""
    _outcomes: dict[RunningOperation, Outcome] = field(factory=dict, init=False)
    _changed: trio.lowlevel.ParkingLot = field(
        factory=trio.lowlevel.ParkingLot, init=False
    )
    _is_changed: bool = field(default=False, init=False)

    # Workers.

    def assign(self, children: Iterable[Child], home: Generation) -> None:
        """Assign *children* to the generation *home*."""
        for child in children:
            self.generations[child] = home
            self.table.links[child] = home

    def forget(self, child: Child) -> None:
        """Forget *child*, which has exited for good."""
        self.crashes.dismissed.discard(child)
        self.generations.pop(child, None)
        self.table.links.pop(child, None)
        self.table.under_way.pop(child, None)

    def generation_of(self, child: Child) -> Generation | None:
        """Return the generation that *child* belongs to."""
        return self.generations.get(child)

    def service_of(self, child: Child) -> AnyService | None:
        """Return the service of *child* as its generation declares it."""
        home = self.generation_of(child)
        unit = None if home is None else home.units.get(child.service)
        return None if unit is None else unit.service

    def on_change(self, child: Child) -> None:
        """Note a change of *child*, and wake the workers that wait for it."""
        since = self.table.under_way.get(child)
        if since is not None and is_over(child, since):
            del self.table.under_way[child]
        for home in {self.generations.get(child), *self.both_generations}:
            if home is not None:
                for waiting in home.dependents_of(child.service):
                    waiting.check_again()
        if self.table.operations:
            self._wake()

    # What a child asks: see `child_spec.Permission`.

    def missing_needs_of(self, child: Child) -> str:
        """Describe what *child* has to wait for before it starts; empty: nothing."""
        return obstacle_of(self.table, child)

    def on_lifetime_over(self, child: Child) -> None:
        """Restart *child*, which has reached its maximum lifetime, when permitted."""
        if home := self.generations.get(child):
            reason = lifetime_text(child.plan.max_lifetime)
            self.begin_restart([child], home, reason, Cause.LIFETIME, home.needs)

    def on_restart_wanted(self, child: Child, reason: str) -> None:
        """Restart *child*, whose process requested it, when permitted."""
        if home := self.generations.get(child):
            self.begin_restart([child], home, reason, Cause.WORKER, home.needs)

    def review(self, child: Child, ending: Ending, decision: Decision) -> Decision:
        """Return what follows an unplanned *ending* of *child*."""
        home = self.generations.get(child)
        if home is None:
            return decision
        is_held = child in self.table.held
        reviewed = self.crashes.review(child, home, ending, decision, is_held)
        if reviewed.group is not None:
            self.begin(reviewed.group)
        return reviewed.decision

    # Operations.

    async def restart(
        self,
        children: Sequence[Child],
        home: Generation,
        reason: str,
        cause: Cause = Cause.RESTART,
        *,
        needs: Needs = _NO_NEEDS,
        max_unavailable: int | None = None,
    ) -> None:
        """Restart *children*; return when the new processes are ready.

        If cancelled, restarts in progress continue and no further one begins.

        Args:
            needs: Dependencies between services. Dependents stop before the workers
                that they need, and start after them. With *max_unavailable*,
                dependencies are restarted first and are ready again before their
                dependents stop.
            max_unavailable: Maximum number of workers per service restarted at once;
                the next restart begins when the one before is ready. None: no limit.

        Raises:
            UnavailableError: a worker exited for good instead, or a shutdown began,
                and the remaining workers were not restarted; or the workers could
                not have started again.
        """
        for child in children:
            if problem := self._lost_code(child):
                raise UnavailableError(f"{child.name} keeps running: {problem}")
        await self.carry_out(
            self._restart_of(children, home, reason, cause, needs, max_unavailable)
        )

    def begin_restart(
        self,
        children: Sequence[Child],
        home: Generation,
        reason: str,
        cause: Cause,
        needs: Needs,
    ) -> None:
        """Begin `restart`; its result is not reported."""
        if any(map(self._lost_code, children)):
            return  # they keep running; why has been logged
        self.begin(self._restart_of(children, home, reason, cause, needs, None))

    async def carry_out(self, operation: Operation) -> list[Child]:
        """Carry out *operation*; return the workers that it asked to stop.

        If cancelled, the operation goes no further; what it has begun continues.

        Raises:
            UnavailableError: it failed; the message says why.
        """
        running = RunningOperation(operation)
        outcome = self._begin(running)
        try:
            await outcome.is_known.wait()
        finally:
            self._end(running, None)
        if outcome.reason is not None:
            raise UnavailableError(outcome.reason)
        return outcome.stopped

    def begin(self, operation: Operation) -> None:
        """Begin *operation*; its result is not reported."""
        self._begin(RunningOperation(operation))

    def close(self) -> None:
        """Begin no more restarts; those in progress fail."""
        self.table.is_closing = True
        self._wake()

    async def run(self) -> None:
        """Carry out all operations, until cancelled."""
        while True:
            while not self._is_changed:
                await self._changed.park()
            self._is_changed = False
            self._take_steps()

    def _restart_of(
        self,
        children: Sequence[Child],
        home: Generation,
        reason: str,
        cause: Cause,
        needs: Needs,
        max_unavailable: int | None,
    ) -> RestartOperation:
        is_limited = max_unavailable is not None or self.table.max_concurrently
        return RestartOperation(
            children,
            needs,
            home,
            cause,
            reason,
            Order.GRADUAL if is_limited else Order.TOGETHER,
            max_unavailable,
        )

    def _begin(self, running: RunningOperation) -> Outcome:
        outcome = self._outcomes[running] = Outcome()
        self.table.operations.append(running)
        self._take_steps()
        return outcome

    def _end(self, running: RunningOperation, reason: str | None) -> None:
        outcome = self._outcomes.pop(running, None)
        if outcome is None:
            return
        outcome.reason = reason
        outcome.is_known.set()
        self.table.operations.remove(running)
        if isinstance(group := running.operation, GroupRestart):
            for member in {group.crashed: None, **dict.fromkeys(running.members)}:
                is_forgiven = group.is_forgiven if member is group.crashed else True
                _child(member).reset_start(is_forgiven=is_forgiven)
        self._update_held()
        self._wake()  # others may have waited for its places

    def _wake(self) -> None:
        self._is_changed = True
        self._changed.unpark_all()

    def _take_steps(self) -> None:
        """Do what is to be done, until nothing is before anything else changes."""
        self._update_held()
        while actions := decide(self.table):
            for action in actions:
                self._do(action)
            self._update_held()

    def _do(self, action: Action) -> None:
        running = action.running
        match action:
            case StopWorker(member=member):
                running.begin(member, member.incarnation)
                self._stop(running, _child(member))
            case RestartWorker(member=member, is_reset=is_reset):
                child = _child(member)
                running.begin(member, member.incarnation + 1)
                if isinstance(running.operation, RestartOperation):
                    self.table.under_way[member] = member.incarnation + 1
                if is_reset:
                    child.reset_start(is_forgiven=False)
                operation = running.operation
                assert isinstance(operation, RestartOperation | GroupRestart)
                child.request_restart(operation.reason, operation.cause)
            case AlreadyRestarted(member=member):
                running.begin(member, member.incarnation)
            case Joined(members=members):
                running.join(members)
            case Finished(member=member):
                running.finish(member)
                if isinstance(running.operation, RestartOperation):
                    self.table.under_way.pop(member, None)
            case Succeeded():
                self._end(running, None)
            case Failed(reason=reason):
                self._end(running, reason)

    def _stop(self, running: RunningOperation, child: Child) -> None:
        operation = running.operation
        assert isinstance(operation, StopOperation)
        if operation.is_for_good or child in self.crashes.dismissed:
            self._retire(child, operation.cause, operation.reason)
        else:
            child.request_stop(operation.reason, operation.cause)
        self._outcomes[running].stopped.append(child)

    def _update_held(self) -> None:
        before, self.table.held = self.table.held, held_members(self.table)
        for member in before - self.table.held:
            _child(member).check_again()


def _child(member: Member) -> Child:
    assert isinstance(member, Child)
    return member
