"""Reload the application atomically: take over completely or roll back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import trio
from attrs import define, evolve, field

from trio_supervisor.application import Application
from trio_supervisor.application.facts import application_facts
from trio_supervisor.controller import events
from trio_supervisor.controller.capacity import added_by
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import ChildPlan, Spawn
from trio_supervisor.controller.fleet.canary import (
    CanaryOwner,
    CanaryWatch,
    Measure,
    start_canary,
)
from trio_supervisor.controller.fleet.generation import Generation
from trio_supervisor.controller.fleet.generation_figures import measured
from trio_supervisor.controller.fleet.loaded_code import modified_code
from trio_supervisor.controller.fleet.make_generation import GenerationFactory, Imported
from trio_supervisor.controller.fleet.takeover import Takeover, TakeoverOwner
from trio_supervisor.controller.launch.launchers import SupervisorLauncher
from trio_supervisor.controller.launch.socket_keys import socket_keys
from trio_supervisor.controller.worker_figures import resident_sizes
from trio_supervisor.errors import (
    PlatformError,
    ReloadError,
    SignalNotPermittedError,
    SpecError,
    SupervisorError,
    UnavailableError,
)
from trio_supervisor.policy.canary import CanaryTrial
from trio_supervisor.policy.crash_text import describe_delay
from trio_supervisor.policy.reload import (
    ReloadOptions,
    ReloadPlan,
    application_changes,
    plan_reload,
)
from trio_supervisor.process.sockets.sockets import SocketChange
from trio_supervisor.process.spawn.working_directory import EnteredDirectory, enter
from trio_supervisor.tasks import ProtectedNursery
from trio_supervisor.wire.controller_messages import GenerationFigures
from trio_supervisor.wire.json_tree import Object


class ReloadOwner(TakeoverOwner, CanaryOwner, Protocol):
    """Callbacks of `Reloader` to the controller."""

    generation_factory: GenerationFactory

    @property
    def nursery(self) -> ProtectedNursery: ...
    def check_open(self) -> None: ...
    def check_capacity(self, more: int) -> None: ...
    def make_child(self, plan: ChildPlan, spawn: Spawn) -> Child: ...
    def take_over(
        self, generation: Generation, launcher: SupervisorLauncher
    ) -> None: ...
    async def publish(self) -> None: ...
    async def ask(self, do: str, arguments: Object) -> Object: ...
    def renew_supervisor(self) -> None: ...


@define(eq=False)
class Reloader:
    """Reloads of one controller, one at a time."""

    _owner: ReloadOwner
    scaled: dict[str, int] = field(factory=dict, init=False)
    """Worker counts set by `scale`, by service."""
    measure: Measure = field(default=resident_sizes, init=False)
    """Reads the memory of processes, to compare canaries by."""
    previous: GenerationFigures | None = field(default=None, init=False)
    """What the workers used when the last successful reload began."""
    _is_under_way: bool = field(default=False, init=False)
    _directory: EnteredDirectory = field(factory=EnteredDirectory, init=False)
    """The directory of the generation that comes, while a reload is in progress."""
    _is_trying: bool = field(default=False, init=False)
    """Whether the reload in progress tries a canary."""
    _watch: CanaryWatch | None = field(default=None, init=False)
    """What compares the canary, once that is ready."""
    _abortable: trio.CancelScope | None = field(default=None, init=False)
    """Cancel scope of the part of a reload that can be aborted."""
    _left_running: str = field(default="", init=False)
    """Workers that the last reload could not stop."""
    _news: trio.Event = field(factory=trio.Event, init=False)

    def check_idle(self, *, but_canary: bool = False) -> None:
        """Check that no reload is in progress.

        Args:
            but_canary: Whether one that tries a canary is none: until that has passed,
                all old workers are left as they are.

        Raises:
            UnavailableError: a reload is in progress.
        """
        if self._is_under_way and not (but_canary and self._is_trying):
            how = "; try again when it has finished"
            if self._watch is not None:
                left = describe_delay(self._watch.left)
                how = f": its canary is compared for another {left}{how}, or abort it"
            raise UnavailableError(f"a reload is in progress{how}")

    async def wait_idle(self) -> None:
        """Wait until no reload is in progress."""
        while self._is_under_way:
            await self._news.wait()

    async def abort(self) -> None:
        """Abort the reload; see `Controller.abort_reload`."""
        if not self._is_under_way:
            raise UnavailableError("no reload is in progress")
        if self._abortable is None:
            raise UnavailableError(
                "too late to abort: the new generation has taken over"
            )
        self._abortable.cancel()
        await self.wait_idle()

    def tell(self) -> None:
        """Wake a reload to check its condition again."""
        news, self._news = self._news, trio.Event()
        news.set()

    async def reload(
        self, application: Application | None, options: ReloadOptions
    ) -> ReloadPlan:
        """Reload; see `Controller.reload`. If cancelled, the reload continues."""
        self._owner.check_open()
        self.check_idle()
        self._is_under_way = True
        outcome = _Outcome()
        self._owner.nursery.start_soon(self._run, outcome, application, options)
        await outcome.is_known.wait()
        if outcome.error is not None:
            raise outcome.error
        if outcome.plan is None:
            raise UnavailableError("the controller shut down during the reload")
        return outcome.plan

    async def _run(
        self,
        outcome: _Outcome,
        application: Application | None,
        options: ReloadOptions,
    ) -> None:
        try:
            try:
                self._left_running = ""
                outcome.plan = await self._reload(application, options)
                if self._left_running:
                    number = self._owner.members.generation.number
                    outcome.error = SignalNotPermittedError(
                        f"generation {number} took over, but {self._left_running}"
                    )
            except SupervisorError as exc:
                outcome.error = exc
            except OSError as exc:
                outcome.error = ReloadError(str(exc))
            await self._owner.publish()
        finally:
            self._is_under_way = False
            self.tell()
            outcome.is_known.set()
        # Not earlier: the old supervisor delivers the answer to the client.
        if outcome.plan is not None and not options.dry_run:
            self._owner.renew_supervisor()

    async def _reload(
        self, application: Application | None, options: ReloadOptions
    ) -> ReloadPlan:
        owner = self._owner
        began = trio.current_time()
        with enter(owner.generation_factory.directory) as directory:
            self._directory = directory
            try:
                with self._may_be_aborted():
                    new = await self._declare(application)
            except SupervisorError as exc:
                self._fail(owner.members.generation.number + 1, str(exc))
                raise
            with new:
                plan = await self._apply(new, options, began)
            if not options.dry_run:
                directory.keep()
            return plan

    async def _apply(
        self, new: Imported, options: ReloadOptions, began: float
    ) -> ReloadPlan:
        owner = self._owner
        number = owner.members.generation.number + 1
        plan = await self._plan(new, options.changed_only)
        try:
            services = _started_by(plan)
            await owner.generation_factory.check_startable(new.application, services)
            owner.check_capacity(added_by(plan))
        except (SpecError, PlatformError) as exc:
            self._fail(number, str(exc))
            raise
        if options.dry_run:
            return plan
        owner.check_open()
        lines = tuple(plan.lines())
        owner.on_event(
            events.ReloadStarted(name="controller", generation=number, plan=lines)
        )
        try:
            listens, _ = socket_keys(new.application)
            async with owner.generation_factory.sockets.change(listens) as change:
                taking = await self._replace(number, new, plan, change, options.canary)
        except (SupervisorError, OSError) as exc:
            self._fail(number, str(exc))
            raise
        self.scaled = {p.name: p.count for p in plan.services if p.is_scaled}
        seconds = trio.current_time() - began
        owner.on_event(
            events.ReloadFinished(name="controller", generation=number, seconds=seconds)
        )
        self._left_running = taking.left_running
        not_ready, canaries = taking.still_failing(), taking.canaries
        return evolve(plan, not_ready=not_ready, canaries=canaries)

    async def _plan(self, new: Imported, changed_only: bool) -> ReloadPlan:
        """Return what the reload is going to do with each service."""
        owner, home = self._owner, self._owner.members.generation
        plan_for = partial(
            plan_reload,
            list(home.learn_facts().values()),
            list(new.facts.values()),
            changed_only=changed_only,
            scaled=self.scaled,
        )
        plan = plan_for()
        if kept := {service.name for service in plan.of("keep")}:
            children = [child for child in home.children if child.service in kept]
            plan = plan_for(modified=await modified_code(children, owner.ask))
        before = application_facts(owner.members.generation.application)
        changes = application_changes(before, application_facts(new.application))
        return evolve(plan, application=changes)

    def _fail(self, number: int, problem: str) -> None:
        self._owner.on_event(
            events.ReloadFailed(name="controller", generation=number, problem=problem)
        )

    async def _declare(self, application: Application | None) -> Imported:
        generation_factory = self._owner.generation_factory
        if application is not None:
            from trio_supervisor.process.imports.declaration_answer import declared

            return Imported(declared(application))
        if generation_factory.source is None:
            raise UnavailableError(
                "cannot import the application again: it was not loaded from a target "
                "(source); the embedding program can pass a new one to "
                "Controller.reload"
            )
        return await generation_factory.import_again(generation_factory.source)

    async def _replace(
        self,
        number: int,
        new: Imported,
        plan: ReloadPlan,
        change: SocketChange,
        canary: CanaryTrial | None,
    ) -> Takeover:
        owner = self._owner
        before = await measured(owner.members.generation)
        generation, launcher = await owner.generation_factory.make(
            number,
            new.application,
            new.facts,
            owner.make_child,
            change.sockets,
            new.adopt(),
            new.files,
        )
        generation.import_seconds = new.import_seconds
        plans = {service.name: service for service in plan.services}
        taking = Takeover(owner, generation, plans)
        taking.prepare()
        owner.members.incoming = generation
        owner.members.fleet.both_generations = owner.members.generation, generation
        owner.members.fleet.crashes.begin_trial(generation, taking.may_fail)
        try:
            with self._may_be_aborted():
                if canary is not None:
                    await self._try(canary, taking)
                await taking.start_new()
        except BaseException:
            # If cancelled, the whole application stops; there is nothing to wait for.
            try:
                await taking.give_up()
            finally:
                generation.close()
            raise
        finally:
            owner.members.incoming = None
            owner.members.fleet.both_generations = ()
            owner.members.fleet.crashes.end_trial()
        change.commit()
        taking.adopt_kept()
        owner.take_over(generation, launcher)
        self.previous = before
        await taking.stop_old()
        return taking

    async def _try(self, canary: CanaryTrial, taking: Takeover) -> None:
        self._is_trying = True
        try:
            start = start_canary(self._owner, taking, canary, self.measure)
            self._watch = watch = await start
            if watch is not None:
                # An old command that is restarted runs where it ran before.
                with self._directory.left():
                    await watch.run()
        finally:
            self._is_trying, self._watch = False, None

    @contextmanager
    def _may_be_aborted(self) -> Iterator[None]:
        with trio.CancelScope() as self._abortable:
            try:
                yield
            finally:
                scope, self._abortable = self._abortable, None
        if scope.cancelled_caught:
            raise ReloadError("aborted")


def _started_by(plan: ReloadPlan) -> set[str]:
    """Return the services for which *plan* starts a process."""
    return {
        service.name
        for service in plan.services
        if service.count and (service.action == "add" or service.is_replaced)
    }


@define(eq=False)
class _Outcome:
    plan: ReloadPlan | None = None
    error: SupervisorError | None = None
    is_known: trio.Event = field(factory=trio.Event)
