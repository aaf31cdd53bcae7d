"""Letting a new generation take over: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Protocol

import trio
from attrs import define, field

from trio_supervisor.controller import events
from trio_supervisor.controller.child import Child
from trio_supervisor.controller.events import Event, Scaled
from trio_supervisor.controller.generation import Generation, Unit
from trio_supervisor.controller.in_order import stop_in_order
from trio_supervisor.controller.plan import ChildPlan, Spawn
from trio_supervisor.controller.relations import Relations
from trio_supervisor.controller.socket_keys import socket_keys
from trio_supervisor.controller.starting import SupervisorLauncher
from trio_supervisor.controller.workshop import Workshop
from trio_supervisor.errors import (
    ReloadError,
    SupervisorError,
    TargetError,
    UnavailableError,
)
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.order import Standing, start_waves
from trio_supervisor.policy.reload import ReloadPlan, ServicePlan, plan_reload
from trio_supervisor.policy.restart import Cause, RestartPolicy
from trio_supervisor.process.declare import Declared, declare, declared
from trio_supervisor.process.sockets import SocketChange
from trio_supervisor.spec import Application

# Whoever imports for longer hangs, and keeps every other command waiting [s].
_IMPORT_WITHIN: Final = 120.0


class Realm(Protocol):
    """What a reload asks of the controller."""

    workshop: Workshop
    relations: Relations
    generation: Generation

    @property
    def is_stopping(self) -> bool: ...
    @property
    def nursery(self) -> trio.Nursery: ...
    def check_open(self) -> None: ...
    def make_child(self, plan: ChildPlan, spawn: Spawn) -> Child: ...
    def launch(self, children: Iterable[Child]) -> None: ...
    def dismiss(self, children: Collection[Child]) -> None: ...
    async def wait_forgotten(self, children: Collection[Child]) -> None: ...
    def retire(
        self, children: Iterable[Child], cause: Cause, reason: str = ""
    ) -> None: ...
    def set_count(
        self, generation: Generation, unit: Unit, count: int
    ) -> tuple[list[Child], list[Child]]: ...
    def take_over(
        self, generation: Generation, launcher: SupervisorLauncher
    ) -> None: ...
    async def publish(self) -> None: ...
    def renew_supervisor(self) -> None: ...
    def on_event(self, event: Event) -> None: ...


@define(eq=False)
class Reloading:
    """The reloads of one controller, one at a time."""

    _realm: Realm
    scaled: dict[str, int] = field(factory=dict, init=False)
    """The counts that were set by hand."""
    coming: Generation | None = field(default=None, init=False)
    """The generation that is being made."""
    _is_under_way: bool = field(default=False, init=False)
    _news: trio.Event = field(factory=trio.Event, init=False)

    def check_idle(self) -> None:
        """Refuse what cannot be done during a reload.

        Raises:
            UnavailableError: there is one.
        """
        if self._is_under_way:
            raise UnavailableError("a reload is under way; try again when it is over")

    async def wait_idle(self) -> None:
        """Wait until no reload is under way."""
        while self._is_under_way:
            await self._news.wait()

    def on_change(self, child: Child) -> None:
        """Look at the new ones again."""
        if self._is_under_way:
            self.tell()

    def tell(self) -> None:
        """Have a reload look again at what it waits for."""
        news, self._news = self._news, trio.Event()
        news.set()

    async def reload(
        self, application: Application | None, *, changed_only: bool, dry_run: bool
    ) -> ReloadPlan:
        """See `Controller.reload`. A cancellation leaves the reload going on."""
        self._realm.check_open()
        self.check_idle()
        self._is_under_way = True
        outcome = _Outcome()
        self._realm.nursery.start_soon(
            self._run, outcome, application, changed_only, dry_run
        )
        await outcome.is_known.wait()
        if outcome.error is not None:
            raise outcome.error
        if outcome.plan is None:
            raise UnavailableError("everything was stopped before it was done")
        return outcome.plan

    async def _run(
        self,
        outcome: _Outcome,
        application: Application | None,
        changed_only: bool,
        dry_run: bool,
    ) -> None:
        try:
            try:
                outcome.plan = await self._reload(application, changed_only, dry_run)
            except SupervisorError as exc:
                outcome.error = exc
            except OSError as exc:
                outcome.error = ReloadError(str(exc))
            await self._realm.publish()
        finally:
            self._is_under_way = False
            self.tell()
            outcome.is_known.set()
        # Not before: it is the one through which whoever asked hears of it.
        if outcome.plan is not None and not dry_run:
            self._realm.renew_supervisor()

    async def _reload(
        self, application: Application | None, changed_only: bool, dry_run: bool
    ) -> ReloadPlan:
        realm = self._realm
        began = trio.current_time()
        number = realm.generation.number + 1
        try:
            new = await self._declare(application)
        except SupervisorError as exc:
            self._fail(number, str(exc))
            raise
        plan = plan_reload(
            list(realm.generation.learn_facts().values()),
            list(new.facts.values()),
            changed_only=changed_only,
            scaled=self.scaled,
        )
        if dry_run:
            return plan
        realm.check_open()
        lines = tuple(plan.lines())
        realm.on_event(
            events.Reloading(name="controller", generation=number, plan=lines)
        )
        try:
            listens, _ = socket_keys(new.application)
            async with realm.workshop.sockets.change(listens) as change:
                await self._replace(number, new, plan, change)
        except (SupervisorError, OSError) as exc:
            self._fail(number, str(exc))
            raise
        self.scaled = {p.name: p.count for p in plan.services if p.is_scaled}
        seconds = trio.current_time() - began
        realm.on_event(
            events.Reloaded(name="controller", generation=number, seconds=seconds)
        )
        return plan

    def _fail(self, number: int, problem: str) -> None:
        self._realm.on_event(
            events.ReloadFailed(name="controller", generation=number, problem=problem)
        )

    async def _declare(self, application: Application | None) -> Declared:
        workshop = self._realm.workshop
        if application is not None:
            return Declared(application=application, facts=declared(application).facts)
        if workshop.source is None:
            raise UnavailableError(
                "the application does not come from a target that could be imported "
                "again; the program that embeds it can give a new one to "
                "Controller.reload"
            )
        environment = workshop.surroundings.child_environment({})
        with trio.move_on_after(_IMPORT_WITHIN):
            return await declare(workshop.source, environment)
        raise TargetError(
            f"{workshop.source.target}: its import takes more than "
            f"{_IMPORT_WITHIN:g} s, and was given up"
        )

    async def _replace(
        self, number: int, new: Declared, plan: ReloadPlan, change: SocketChange
    ) -> None:
        realm = self._realm
        generation, launcher = await realm.workshop.make(
            number, new.application, new.facts, realm.make_child, change.sockets
        )
        plans = {service.name: service for service in plan.services}
        takeover = _Takeover(self, realm, generation, plans)
        takeover.prepare()
        self.coming = realm.relations.probation = generation
        try:
            await takeover.start_new()
        except BaseException:
            with trio.CancelScope(shield=True):
                await takeover.give_up()
            raise
        finally:
            self.coming = realm.relations.probation = None
        change.commit()
        takeover.adopt_kept()
        realm.take_over(generation, launcher)
        await takeover.stop_old()

    async def until_ready(self, children: Sequence[Child]) -> None:
        """Wait until each of *children* is ready, or has done its work.

        Raises:
            ReloadError: one came to another end.
        """
        while True:
            if self._realm.is_stopping:
                raise ReloadError("everything is being stopped")
            for child in children:
                if child.is_at_rest and not _has_done_its_work(child):
                    if child.incarnation == 0 and child.is_wanted:
                        continue  # not even begun
                    raise ReloadError(_story(child))
                if child.state is State.WAITING:
                    self._check_hope(child)
            if all(_is_settled(child) for child in children):
                return
            await self._news.wait()

    def _check_hope(self, child: Child) -> None:
        """See that nothing that *child* waits for is at rest: it would not come.

        Raises:
            ReloadError: something is.
        """
        coming = self.coming
        missing = coming.unmet(child.plan.service) if coming is not None else ()
        for name, condition in missing:
            assert coming is not None
            for other in coming.units[name].children:
                is_done = other.standing is Standing.EXITED_OK
                if other.is_at_rest and not other.is_wanted and not is_done:
                    raise ReloadError(
                        f"{child.name} of the new generation waits for {name} "
                        f"({condition}), and {other.name} is {other.state.value}"
                    )


@define(eq=False)
class _Outcome:
    plan: ReloadPlan | None = None
    error: SupervisorError | None = None
    is_known: trio.Event = field(factory=trio.Event)


@define(eq=False)
class _Takeover:
    """One generation on its way to take the place of another."""

    _reloading: Reloading
    _realm: Realm
    _new: Generation
    _plans: dict[str, ServicePlan]
    _fresh: dict[str, list[Child]] = field(factory=dict, init=False)
    """What is to be started, by service: of one that is kept, what it lacks."""
    _launched: list[Child] = field(factory=list, init=False)
    _old: Generation = field(init=False)
    _swapped: list[str] = field(factory=list, init=False)
    """Services whose old workers were stopped already: they bear no company."""

    def prepare(self) -> None:
        """Make the new workers, which do not run yet."""
        new, old = self._new, self._realm.generation
        for service in new.application.services:
            plan = self._plans[service.name]
            if self._is_fresh(plan):
                unit = new.make_unit(service, plan.count)
                if plan.action != "add":
                    _explain(unit, "reload")
                self._fresh[service.name] = unit.children
            else:
                kept = old.units[service.name].children
                numbers = range(len(kept), plan.count)
                more = [new.make_child(service, number) for number in numbers]
                new.units[service.name] = Unit(service, [*kept, *more])
                if more:
                    self._fresh[service.name] = more
        for children in self._fresh.values():
            self._realm.relations.settle(children, new)

    async def start_new(self) -> None:
        """Start the new workers in the order of their dependencies."""
        for wave in start_waves(self._fresh, self._new.needs):
            for name, children in self._fresh.items():
                if name not in wave:
                    continue
                plan = self._plans[name]
                if plan.is_replaced and not plan.overlap:
                    await self._stop_before(name)
                self._launched += children
                self._realm.launch(children)
            await self._reloading.until_ready(self._launched)

    async def _stop_before(self, name: str) -> None:
        """End the old workers of a service of which two cannot run at once."""
        self._swapped.append(name)
        old = self._realm.generation
        await stop_in_order(old, old.units[name].children, self._dismisser("gives way"))

    async def give_up(self) -> None:
        """End what was started, and bring back what was stopped."""
        realm, old = self._realm, self._realm.generation
        await stop_in_order(
            self._new, self._launched, self._dismisser("the reload failed")
        )
        await realm.wait_forgotten(self._launched)
        for children in self._fresh.values():
            realm.relations.forget(c for c in children if c not in self._launched)
        self._new.close()
        back: list[Child] = []
        for name in self._swapped:
            if not realm.is_stopping:
                unit = old.units[name]
                unit = old.make_unit(unit.service, len(unit.children))
                _explain(unit, "the reload failed")
                realm.relations.settle(unit.children, old)
                realm.launch(unit.children)
                back += unit.children
        for child in back:
            await _until_back(child)

    def adopt_kept(self) -> None:
        """Take over the workers that go on."""
        for service in self._new.application.services:
            plan = self._plans[service.name]
            if not self._is_fresh(plan):
                unit = self._new.units[service.name]
                self._new.adopt(unit, service)
                if (more := self._fresh.get(service.name)) is not None:
                    before = plan.count - len(more)
                    self._realm.on_event(
                        Scaled(name=service.name, before=before, count=plan.count)
                    )
                self._realm.relations.settle(unit.children, self._new)
        self._old = self._realm.generation

    async def stop_old(self) -> None:
        """End the workers whose place was taken, or is no more."""
        realm, old = self._realm, self._old
        leaving = [
            child
            for name, unit in old.units.items()
            if name not in self._swapped
            and (name not in self._new.units or self._is_fresh(self._plans[name]))
            for child in unit.children
        ]
        realm.dismiss(leaving)
        surplus: list[Child] = []
        for name, unit in list(self._new.units.items()):
            plan = self._plans[name]
            if not self._is_fresh(plan) and len(unit.children) > plan.count:
                surplus += realm.set_count(self._new, unit, plan.count)[1]
        await stop_in_order(old, leaving, self._dismisser(""))
        await realm.wait_forgotten([*leaving, *surplus])
        old.close()

    def _dismisser(self, reason: str) -> Callable[[Child], None]:
        return lambda child: self._realm.retire([child], Cause.RELOAD, reason)

    @staticmethod
    def _is_fresh(plan: ServicePlan) -> bool:
        return plan.action == "add" or plan.is_replaced


def _explain(unit: Unit, reason: str) -> None:
    """Have status show why these workers were started."""
    for child in unit.children:
        child.why = reason


async def _until_back(child: Child) -> None:
    """Wait until *child*, which ran before, is ready again, or is not at once."""
    while child.incarnation < 2 and not _is_settled(child):
        has_ended = child.is_at_rest and (child.incarnation or not child.is_wanted)
        if has_ended or child.state is State.WAITING:
            return
        await child.wait_news()


def _is_settled(child: Child) -> bool:
    return child.state is State.READY or _has_done_its_work(child)


def _has_done_its_work(child: Child) -> bool:
    """Whether it has ended for good, as it was to.

    One that is to run for ever has not, whatever it exits with.
    """
    if child.standing is not Standing.EXITED_OK or child.last_ending is None:
        return False
    rules = child.plan.rules
    is_last = child.last_ending.returncode in rules.give_up_on
    return is_last or rules.policy is not RestartPolicy.ALWAYS


def _story(child: Child) -> str:
    name, ending = f"{child.name} of the new generation", child.last_ending
    if ending is not None and ending.cause is Cause.STARTUP_TIMEOUT:
        return f"{name} was not ready in time"
    was_ready = ending is not None and ending.ready_for is not None
    when = "at once" if was_ready else "before it was ready"
    return f"{name} ended {when}: {child.last_exit or 'it was stopped'}"
