"""Replace one generation with another, or roll back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from attrs import define, field

from trio_supervisor.application import AnyService
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.events import Event, ServiceScaled, WorkerStillFailing
from trio_supervisor.controller.fleet.generation import Generation, Unit
from trio_supervisor.controller.fleet.members import Members
from trio_supervisor.controller.fleet.ordered_stop import (
    describe_not_permitted,
    retirement,
)
from trio_supervisor.errors import ReloadError, UnavailableError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.operations import TrialOperation
from trio_supervisor.policy.order import dependents, needs_of, start_waves
from trio_supervisor.policy.reload import ServicePlan
from trio_supervisor.policy.scheduler import is_excused


class TakeoverOwner(Protocol):
    """Callbacks of `Takeover` to the controller."""

    members: Members

    @property
    def is_stopping(self) -> bool: ...
    def on_event(self, event: Event) -> None: ...


@define(eq=False)
class Takeover:
    """Takeover by a new generation: starts new workers, stops old ones."""

    _owner: TakeoverOwner
    _new: Generation
    _plans: dict[str, ServicePlan]
    _old: Generation = field(init=False)
    _to_start: dict[str, list[Child]] = field(factory=dict, init=False)
    """Workers to start, by service; for a kept service, the missing ones."""
    _launched: list[Child] = field(factory=list, init=False)
    _stopped_services: set[str] = field(factory=set, init=False)
    """Services whose old workers must stop before the new ones start."""
    _stopped_first: dict[Child, bool] = field(factory=dict, init=False)
    """Stopped old workers of these services, and whether a rollback leaves them so."""
    may_fail: set[Child] = field(factory=set, init=False)
    """New workers whose predecessors were failing: they may fail as well."""
    canaries: tuple[str, ...] = field(default=(), init=False)
    """New workers that were tried before the others were started."""
    left_running: str = field(default="", init=False)
    """Old workers that could not be stopped because they run as another user."""

    @property
    def number(self) -> int:
        """Number of the new generation."""
        return self._new.number

    def __attrs_post_init__(self) -> None:
        self._old = self._owner.members.generation

    def prepare(self) -> None:
        """Create the new workers without starting them.

        Workers that the operator stopped stay stopped.
        """
        for service in self._new.application.services:
            before = self._old.units.get(service.name)
            old = before.children if before else []
            if self._is_started(service.name):
                kept: list[Child] = []
                new = self._make(service, old, 0)
                for child in new if old else []:
                    child.why = "reload"
            else:
                kept, new = old, self._make(service, old, len(old))
            self._new.units[service.name] = Unit(service, [*kept, *new])
            if new:
                self._to_start[service.name] = new

    def choose_canaries(self, most: int) -> dict[str, list[Child]]:
        """Return at most *most* new workers of each service that can have a canary.

        That is one whose old workers keep running beside them, to be compared with.
        """
        found = {}
        for name, children in self._to_start.items():
            if not (self._is_started(name) and self._plans[name].overlap):
                continue
            unit = self._old.units.get(name)
            before = unit.children if unit else []
            able = [
                new
                for new, old in zip(children, before, strict=False)
                if old.state is State.READY
                and not (new.was_stopped or new in self.may_fail)
            ]
            if able:
                found[name] = able[-most:]  # the first may have other duties as well
        return found

    def no_canary_text(self) -> str:
        """Return why no service can have a canary; empty: no worker is replaced."""
        return ", ".join(
            f"{name} ({'no worker is ready' if plan.overlap else 'overlap=False'})"
            for name, plan in self._plans.items()
            if plan.is_replaced and plan.count
        )

    def old_workers_of(self, name: str) -> list[Child]:
        """Return the workers that canaries of service *name* are compared with."""
        return [child for child in self._old.units[name].children if child.is_wanted]

    @contextmanager
    def excuse(self, children: Collection[Child]) -> Iterator[None]:
        """Restart *children* if they crash; else that fails the reload."""
        excused = set(children) - self.may_fail
        self.may_fail |= excused
        try:
            yield
        finally:
            self.may_fail -= excused

    async def start_canaries(self, canaries: Mapping[str, list[Child]]) -> None:
        """Start *canaries*, and the new services that they need.

        Old workers stand for the other services that they need.

        Raises:
            ReloadError: a worker exited before it was ready.
        """
        needed = needs_of(canaries, self._new.needs)
        chosen = {
            name: canaries.get(name, children)
            for name, children in self._to_start.items()
            if name in canaries
            or (
                (name in needed and self._is_started(name))
                and not self._stops_first(name)
            )
        }
        for name, unit in self._new.units.items():
            if name in chosen:
                self._new.successors[name] = Unit(unit.service, chosen[name])
            elif name in self._old.units:
                self._new.successors[name] = self._old.units[name]
        await self._start(chosen)
        await self._until_up(is_stable=True)

    async def start_new(self) -> None:
        """Start the new workers in the order of their dependencies.

        Raises:
            ReloadError: a worker exited before it was ready.
        """
        self._new.successors.clear()  # of the canaries
        await self._start(self._to_start)
        # Dependents did not wait for `stable_for`; the stop of the old workers does.
        await self._until_up(is_stable=True)
        for name, trouble in self.still_failing().items():
            self._owner.on_event(WorkerStillFailing(name=name, problem=trouble))

    def still_failing(self) -> dict[str, str]:
        """Return the workers that fail as they did before the reload, and how.

        These are new workers whose predecessors were failing, and kept workers.
        """
        launched, trial = set(self._launched), self._trial()
        table = self._owner.members.fleet.table
        return {
            child.name: _trouble_of(child) or child.state.value
            for child in self._new.children
            if not (child.was_stopped or _is_stable(child))
            and (child not in launched or is_excused(table, trial, child))
        }

    async def give_up(self) -> None:
        """Roll back: stop the new workers and restart the stopped old ones."""
        owner, old = self._owner, self._old
        await owner.members.fleet.carry_out(
            retirement(self._new, self._launched, "reload failed")
        )
        for children in self._to_start.values():
            owner.members.forget(c for c in children if c not in self._launched)
        await owner.members.wait_forgotten(self._launched)
        self._new.close()
        old.successors.clear()
        if owner.is_stopping:
            return
        back: list[Child] = []
        for name in self._stopped_services:
            unit = old.units[name]
            for index, child in enumerate(unit.children):
                if child in self._stopped_first:
                    again = unit.children[index] = old.make_child(unit.service, index)
                    again.why = "reload failed"
                    again.not_permitted = again.last_exit = child.not_permitted
                    if self._stopped_first[child] or child.not_permitted:
                        again.stay_stopped()
                    back.append(again)
        owner.members.fleet.assign(back, old)
        owner.members.launch(back)
        for child in back:
            await _until_back(child)

    def adopt_kept(self) -> None:
        """Move the kept workers to the new generation."""
        for service in self._new.application.services:
            if self._is_started(service.name):
                continue
            unit, plan = self._new.units[service.name], self._plans[service.name]
            self._new.adopt(unit, service)
            if (more := self._to_start.get(service.name)) is not None:
                before = plan.count - len(more)
                self._owner.on_event(
                    ServiceScaled(name=service.name, before=before, count=plan.count)
                )
            self._owner.members.fleet.assign(unit.children, self._new)

    async def stop_old(self) -> None:
        """Stop the old workers that were replaced or removed."""
        owner = self._owner
        leaving = [
            child
            for name, unit in self._old.units.items()
            if name not in self._new.units or self._is_started(name)
            for child in unit.children
            if child not in self._stopped_first
        ]
        owner.members.dismiss(leaving)
        leaving = [child for child in leaving if not _is_running_by_schedule(child)]
        surplus: list[Child] = []
        for name, unit in list(self._new.units.items()):
            count = self._plans[name].count
            if not self._is_started(name) and len(unit.children) > count:
                surplus += owner.members.set_count(self._new, unit, count)[1]
        await owner.members.fleet.carry_out(
            retirement(self._old, leaving, "replaced by the new generation")
        )
        await owner.members.wait_forgotten([*leaving, *surplus])
        self.left_running = describe_not_permitted([*leaving, *surplus])
        self._old.close()

    async def _start(self, chosen: Mapping[str, list[Child]]) -> None:
        """Start the workers of *chosen* that do not run yet."""
        members, launched = self._owner.members, set(self._launched)
        fresh = {
            name: [child for child in children if child not in launched]
            for name, children in chosen.items()
        }
        for children in fresh.values():
            members.fleet.assign(children, self._new)
            members.announce(children)
        for wave in start_waves(chosen, self._new.needs):
            for name, children in fresh.items():
                if name in wave:
                    if self._stops_first(name):
                        await self._until_jobs_done(name)
                        await self._stop_before(name)
                    self._launched += children
                    members.launch(children)
            await self._until_up()

    def _make(
        self, service: AnyService, old: Sequence[Child], first: int
    ) -> list[Child]:
        """Create the workers of *service*, numbered from *first*."""
        made = []
        unit = self._old.units.get(service.name)
        if unit is not None and unit.service.on_demand and not service.on_demand:
            # Only those that were stopped by hand stay so: the others were waiting.
            old = [child for child in old if child.is_paused or not child.was_stopped]
        were_all_stopped = all(child.was_stopped for child in old)
        if not old:
            were_all_stopped = service.name not in self._new.autostarted
        for index in range(first, self._plans[service.name].count):
            child = self._new.make_child(service, index)
            has_old = index < len(old)
            if old[index].was_stopped if has_old else were_all_stopped:
                child.stay_stopped()
            if service.schedule is not None:
                child.stay_stopped()
                if has_old:
                    child.is_paused = old[index].is_paused
                    child.schedule = old[index].schedule
            before = old[index : index + 1] or old
            if before and all(map(self._is_down, before)):
                self.may_fail.add(child)
            made.append(child)
        return made

    async def _until_jobs_done(self, name: str) -> None:
        """Wait for the new jobs that service *name* needs; its old workers still run.

        Raises:
            ReloadError: a job has failed.
        """
        jobs = [
            child
            for other, condition in self._new.needs.get(name, {}).items()
            for child in self._to_start.get(other, ())
            if condition == "exited_ok" and child not in self.may_fail
        ]
        for job in jobs:
            await self._until_up()
            while not (job.was_stopped or job.has_done_its_work):
                await job.wait_news()
                await self._until_up()

    async def _stop_before(self, name: str) -> None:
        """Stop the old workers of a service that cannot run beside its new ones.

        Dependents with the same restriction are stopped first; others keep running.
        """
        own = self._old.units[name].children
        runs = any(child.is_wanted or not child.is_down for child in own)
        others = dependents({name}, self._old.needs) if runs else ()
        names = {name, *filter(self._stops_first, others)} - self._stopped_services
        leaving = [
            child
            for each in names
            for child in self._old.units[each].children
            if child.is_wanted or not child.is_down
        ]
        self._stopped_services |= names
        self._stopped_first |= {child: child.was_stopped for child in leaving}
        for each in names:  # dependents wait for the new workers from now on
            self._old.successors[each] = self._new.units[each]
        await self._owner.members.fleet.carry_out(
            retirement(self._old, leaving, "stopped before its replacement starts")
        )
        if problem := describe_not_permitted(leaving):
            raise ReloadError(problem)

    def _is_down(self, child: Child) -> bool:
        """Return whether an old worker fails or waits for a failing one."""
        if child.state is not State.WAITING:
            return child.is_failing
        return any(
            self._is_down(other)
            for name, _ in self._old.unmet(child.plan.service)
            for other in self._old.unit_of(name).children
        )

    def _is_started(self, name: str) -> bool:
        plan = self._plans[name]
        return plan.action == "add" or plan.is_replaced

    def _stops_first(self, name: str) -> bool:
        plan = self._plans.get(name)
        if plan is None or not plan.is_replaced or plan.overlap:
            return False
        # A run by a schedule is let end.
        return self._old.units[name].service.schedule is None

    def _trial(self, *, is_stable: bool = False) -> TrialOperation:
        return TrialOperation(self._launched, self._new, self.may_fail, is_stable)

    async def _until_up(self, *, is_stable: bool = False) -> None:
        """Wait until all launched workers are up, or fail as their predecessors did.

        Raises:
            ReloadError: a worker exited instead.
        """
        try:
            await self._owner.members.fleet.carry_out(self._trial(is_stable=is_stable))
        except UnavailableError as exc:
            raise ReloadError(str(exc)) from None


async def _until_back(child: Child) -> None:
    """Wait until *child*, restarted by a rollback, is ready, exits or waits."""
    while child.incarnation < 2 and not _is_settled(child):
        has_ended = child.is_down and (child.incarnation or not child.is_wanted)
        if has_ended or child.state is State.WAITING:
            return
        await child.wait_news()


def _is_running_by_schedule(child: Child) -> bool:
    """Whether *child* is left to end its run: `ScheduledRuns` retires it then."""
    return child.plan.is_scheduled and child.has_process


def _is_settled(child: Child) -> bool:
    return child.state is State.READY or child.has_done_its_work


def _is_stable(child: Child) -> bool:
    return child.is_stable or child.has_done_its_work


def _trouble_of(child: Child) -> str:
    return f"waiting for {child.waiting_for}" if child.waiting_for else child.trouble
