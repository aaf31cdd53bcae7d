"""Start, watch and stop the supervisor process and all workers."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final, TypeAlias

import trio
from trio.lowlevel import enable_ki_protection

from trio_supervisor._construction import NoPublicConstructor
from trio_supervisor.application import MAX_COUNT, Application
from trio_supervisor.controller.aftermath import ProcessAftermath
from trio_supervisor.controller.capacity import check_capacity
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import (
    SUPERVISOR_PLAN,
    ChildPlan,
    Spawn,
)
from trio_supervisor.controller.child.notifications import NotificationRouter
from trio_supervisor.controller.event_log import EventLog
from trio_supervisor.controller.events import (
    Event,
    ServiceScaled,
    ServingStarted,
    ShutdownFinished,
    ShutdownStarted,
    ShutdownTimedOut,
    SupervisorConnected,
    SupervisorLost,
)
from trio_supervisor.controller.fleet.crash_review import CrashReview
from trio_supervisor.controller.fleet.fleet import Fleet
from trio_supervisor.controller.fleet.generation import Generation, Unit
from trio_supervisor.controller.fleet.health import Readiness
from trio_supervisor.controller.fleet.make_generation import GenerationFactory
from trio_supervisor.controller.fleet.ordered_stop import (
    check_ended,
    stop_all_operation,
    stop_operation,
)
from trio_supervisor.controller.fleet.overload import OverloadControl
from trio_supervisor.controller.fleet.reload import Reloader
from trio_supervisor.controller.fleet.selectors import choose
from trio_supervisor.controller.fleet.shortages import Shortages
from trio_supervisor.controller.launch.launchers import SupervisorLauncher
from trio_supervisor.controller.post_mortem.collect import PostMortemCollector
from trio_supervisor.controller.post_mortem.store import PostMortemStore
from trio_supervisor.controller.supervisor_link import SupervisorLink, record_of
from trio_supervisor.errors import (
    CallFailedError,
    ConnectionLostError,
    NoSuchWorkerError,
    RestartLimitError,
    SignalNotPermittedError,
    SignificantServiceError,
    SupervisorError,
    UnavailableError,
)
from trio_supervisor.link.entries import Entries, EntryBatch
from trio_supervisor.link.peer import Answer, IncomingCall
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.operations import StartOperation
from trio_supervisor.policy.order import Standing, needs_of
from trio_supervisor.policy.reload import ReloadPlan
from trio_supervisor.policy.restart import Cause
from trio_supervisor.policy.shutdown import is_over, kill_after, stop_warning
from trio_supervisor.process.child import Process
from trio_supervisor.process.cleanup.guardian_client import GuardianClient
from trio_supervisor.process.cleanup.orphans import Orphans
from trio_supervisor.process.cleanup.stopping import StopDeadline, StopPlan
from trio_supervisor.process.inspection.machine_load import IdleMachine, Machine
from trio_supervisor.process.output.hub import OutputHub
from trio_supervisor.process.threads import run_in_thread
from trio_supervisor.tasks import open_nursery
from trio_supervisor.wire.controller_messages import HealthReport
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.workers import WorkerRecord

logger = logging.getLogger(__name__)

# An unknown zombie is reaped after at most twice this interval [s].
_REAP_INTERVAL: Final = 1.0
# A supervisor without a controller has no work to finish, so no grace period.
_SUPERVISOR_ALONE: Final = StopPlan(timeout=0.0)
# Time for the old supervisor to send the reload's result before it is replaced [s].
_LAST_WORD: Final = 0.05
# Longest delay of an answer when the reader of the log is slow [s].
_LOG_PATIENCE: Final = 0.1
OnEvent: TypeAlias = Callable[[Event], None]


class Controller(metaclass=NoPublicConstructor):
    """A running application; made by `open_controller`.

    Its methods have the same names as those of `Client`. None has a timeout: use
    `trio.fail_after`. Cancelling a method stops the wait, not the operation that it
    started.
    """

    application: Application
    """Declaration from the latest import; functions may be names only."""
    socket_path: str
    supervisor: Child
    generation: Generation
    reloader: Reloader
    """Reloads: replaces one generation with the next."""

    def __init__(
        self,
        socket_path: str,
        generation_factory: GenerationFactory,
        guardian: GuardianClient,
        stop_deadline: StopDeadline,
        on_event: OnEvent,
        answer: Callable[[Controller, IncomingCall], Answer],
        store: PostMortemStore | None,
        *,
        owns_process: bool,
        machine: Machine | None = None,
    ) -> None:
        self.socket_path = socket_path
        self.generation_factory = generation_factory
        self.event_log = EventLog()
        self._guardian = guardian
        self._on_event = on_event
        self._stop_deadline = stop_deadline
        self._rng = random.Random()
        self.fleet = Fleet(
            CrashReview(self.on_event), self._retire_one, self._lost_code
        )
        self.reloader = Reloader(self)
        self.link = SupervisorLink(self, partial(answer, self), self._on_connected)
        self.post_mortems = PostMortemCollector(
            store,
            lambda: self.link,
            self.on_event,
            lambda: self.nursery,
            generation_factory.context.boxes,
        )
        self.notifications = NotificationRouter(
            lambda: self.nursery, generation_factory.context.directory
        )
        self._aftermath = ProcessAftermath(
            self.fleet,
            generation_factory,
            guardian,
            self.notifications,
            self.post_mortems,
            stop_deadline,
        )
        self.load_control = OverloadControl(
            self.everyone, self.on_event, machine or IdleMachine()
        )
        self.readiness = Readiness(self)
        self._orphans = Orphans(is_alone=owns_process)
        self.owns_process = owns_process
        self._leaving: set[Child] = set()
        self._shortages = Shortages()
        self._was_connected = False
        self._taken_over = trio.Event()
        self._shutdown = trio.Event()
        self._workers_stopped = trio.Event()
        self._are_awaiting_stop = False
        """Whether a client waits for the shutdown and must be answered first."""
        self._reason = ""
        self._failure: SupervisorError | None = None

    def begin(self, generation: Generation, launcher: SupervisorLauncher) -> None:
        """Install the first generation."""
        self.generation = generation
        self.application = generation.application
        self.fleet.table.max_concurrently = self.application.max_restarts_concurrently
        self._launcher = launcher
        self.supervisor = Child(
            SUPERVISOR_PLAN,
            launcher,
            self,
            self._rng,
            self._stop_deadline,
        )
        self.supervisor.load_control = self.load_control
        for service in self.application.services:
            unit = generation.make_unit(service, service.count)
            self.fleet.assign(unit.children, generation)
        self.readiness.count_again()
        self._warn_of_stop()

    def make_child(self, plan: ChildPlan, spawn: Spawn) -> Child:
        """Return a worker that is not running yet."""
        child = Child(
            plan,
            spawn,
            self,
            self._rng,
            self._stop_deadline,
            permission=self.fleet,
            aftermath=self._aftermath,
        )
        child.load_control = self.load_control
        return child

    # API for the embedding program. A KeyboardInterrupt in its main task is delivered
    # at the next checkpoint of these methods.

    @property
    def workers(self) -> tuple[WorkerRecord, ...]:
        """Records of all workers, in the order of declaration."""
        return tuple(record_of(child) for child in self.generation.children)

    @property
    def children(self) -> Mapping[str, Child]:
        """Workers of the current generation, by name."""
        return {child.name: child for child in self.generation.children}

    def everyone(self) -> Iterable[Child]:
        """Return all workers, including those of a reload and those being stopped."""
        incoming = self.reloader.incoming
        every = dict.fromkeys(self.generation.children)
        if incoming is not None:
            every |= dict.fromkeys(incoming.children)
        every |= dict.fromkeys(self._leaving)
        yield from filter(self.knows, every)

    def knows(self, child: Child) -> bool:
        """Return whether *child* is one of `everyone`."""
        return self.fleet.generation_of(child) is not None

    def counts(self, child: Child) -> bool:
        """Return whether *child* is in the current generation and not being removed."""
        home = self.fleet.generation_of(child)
        return home is self.generation and child not in self._leaving

    @enable_ki_protection
    async def wait_ready(self) -> None:
        """Wait until the supervisor and all workers are ready at the same time.

        There is no timeout: use `trio.fail_after`. If the application fails, the block
        of `open_controller` is cancelled, including this wait.

        Raises:
            UnavailableError: a worker failed for good; the message names it.
        """
        await self.readiness.wait()

    @enable_ki_protection
    async def restart(
        self,
        *names: str,
        reason: str = "",
        rolling: bool = False,
        max_unavailable: int = 1,
    ) -> None:
        """Restart workers gracefully: *names* (``web.0`` or ``web``), or all.

        Returns when the new workers are ready. If cancelled, the restart continues; a
        rolling restart starts no further batch.

        Args:
            rolling: Restart in batches; each waits until the one before is ready.
            max_unavailable: With *rolling*: maximum number of workers per service
                restarted at once.

        Raises:
            NoSuchWorkerError: a name is unknown; nothing was restarted.
            SpecError: something the workers need is missing; nothing was stopped.
            UnavailableError: a worker exited for good instead.
        """
        chosen = self.choose(names or None)
        self.check_has_workers(names, "restart")
        limit = max_unavailable if rolling else None
        await self.replace(chosen, reason, max_unavailable=limit)

    @enable_ki_protection
    async def stop(self, *names: str, reason: str = "") -> tuple[str, ...]:
        """Stop workers and their dependents, and keep them stopped.

        Returns the names of all stopped workers, dependents first, once their processes
        are gone. Dependents are stopped only if no worker of the service keeps running.
        A worker that another call has started again is left out.

        Raises:
            NoSuchWorkerError: a name is unknown; nothing was stopped.
        """
        self.reloader.check_idle()
        chosen = self.choose(names)
        operation = stop_operation(self.generation, chosen, reason)
        stopped = await self.fleet.carry_out(operation)
        members = set(operation.members)
        check_ended(child for child in self.generation.children if child in members)
        return tuple(c.name for c in dict.fromkeys(stopped) if not c.is_wanted)

    @enable_ki_protection
    async def start(self, *names: str) -> None:
        """Start the stopped workers among *names*, and their dependencies.

        Returns when all have been ready for ``stable_for`` seconds. A finished one-shot
        job is not run again for its dependents.

        Raises:
            NoSuchWorkerError: a name is unknown; nothing was started.
            SpecError: something the workers need is missing; nothing was started.
            UnavailableError: a worker exited instead, or a service has no workers; all
                workers that this call started are stopped again.
        """
        self.reloader.check_idle()
        self.check_has_workers(names, "start")
        chosen = self.choose(names)
        absent = [c for c in [*self._missing_needs(chosen), *chosen] if not c.process]
        await self.check_startable(child.plan.service for child in absent)
        chosen = self.choose(names)
        self.check_open()
        begun = [c for c in [*self._missing_needs(chosen), *chosen] if not c.is_wanted]
        running = (State.STARTING, State.READY, State.UNREADY, State.UNHEALTHY)
        since = [(c, c.incarnation + (c.state not in running)) for c in chosen]
        for child in dict.fromkeys([*begun, *chosen]):
            child.request_start()
        try:
            await self.fleet.carry_out(StartOperation(since))
        except UnavailableError as exc:
            undone = [child for child in begun if child.is_wanted]
            if not undone or self.is_stopping:
                raise
            undo = stop_operation(self.generation, undone, "start failed")
            await self.fleet.carry_out(undo)
            names_of = ", ".join(child.name for child in undone)
            raise UnavailableError(f"{exc}; stopped again: {names_of}") from exc

    @enable_ki_protection
    async def scale(self, counts: Mapping[str, int]) -> None:
        """Change the number of workers of services; the remaining ones keep running.

        Returns when the new workers have been ready for ``stable_for`` seconds and the
        surplus ones, those with the highest numbers, have exited. A reload keeps the
        count unless the new application declares a different one.

        Raises:
            NoSuchWorkerError: a service is unknown; nothing was changed.
            SpecError: something the workers need is missing; nothing was changed.
            PlatformError: there are too few file descriptors; nothing was changed.
            UnavailableError: a count is out of range, or a shutdown is in progress; or
                a new worker exited instead, and the previous counts were restored.
            SignalNotPermittedError: a worker to stop runs as another user.
        """
        self.reloader.check_idle()
        self.check_open()
        for name, count in counts.items():
            if name not in self.generation.units:
                known = ", ".join(self.generation.units) or "none"
                raise NoSuchWorkerError(
                    f"no service has the name {name!r:.80}; services: {known}"
                )
            if not 0 <= count <= MAX_COUNT:
                raise UnavailableError(f"{name}: expected 0 to {MAX_COUNT} workers")
        before = {name: len(self.generation.units[name].children) for name in counts}
        growing = [name for name, count in counts.items() if count > before[name]]
        await self.check_startable(growing)
        self.reloader.check_idle()
        self.check_open()
        self.check_capacity(sum(counts[name] - before[name] for name in growing))
        scaled = dict(self.reloader.scaled)
        changes = [self._scale(name, count) for name, count in counts.items()]
        try:
            begun = [(child, 1) for more, _ in changes for child in more]
            await self.fleet.carry_out(StartOperation(begun))
            for _, leaving in changes:
                await self.wait_forgotten(leaving)
        except UnavailableError as exc:
            units = self.generation.units
            # Keep changes that another call or a reload has made since.
            if self.is_stopping or any(
                name not in units or len(units[name].children) != count
                for name, count in counts.items()
            ):
                raise
            for name, count in before.items():
                _, leaving = self._scale(name, count)
                await self.wait_forgotten(leaving)
            self.reloader.scaled = scaled
            again = ", ".join(f"{name}={count}" for name, count in before.items())
            raise UnavailableError(f"{exc}; scaled back to {again}") from exc
        check_ended(child for _, leaving in changes for child in leaving)

    def _scale(self, name: str, count: int) -> tuple[list[Child], list[Child]]:
        self.reloader.scaled[name] = count
        return self.set_count(self.generation, self.generation.units[name], count)

    @enable_ki_protection
    async def reload(
        self,
        application: Application | None = None,
        *,
        changed_only: bool = False,
        dry_run: bool = False,
    ) -> ReloadPlan:
        """Import the application again and replace all workers with a new generation.

        The new workers start beside the old ones, which are stopped once all new ones
        are ready. If one does not become ready, the reload is rolled back and the
        previous generation keeps running.

        Args:
            application: New declaration, if it does not come from a target.
            changed_only: Keep the workers whose declaration and code are unchanged.
            dry_run: Only return what the reload would do.

        Raises:
            TargetError: the import failed; nothing was changed.
            ReloadError: the new generation did not become ready; the message says why.
            SignalNotPermittedError: the reload succeeded, but an old worker that runs
                as another user could not be stopped.
            UnavailableError: a reload or a shutdown is in progress.
        """
        return await self.reloader.reload(
            application, changed_only=changed_only, dry_run=dry_run
        )

    @enable_ki_protection
    async def abort_reload(self) -> None:
        """Abort the reload in progress; return when it has been rolled back.

        The caller of the reload gets a `ReloadError`.

        Raises:
            UnavailableError: no reload is in progress, or it can no longer be aborted.
        """
        await self.reloader.abort()

    @enable_ki_protection
    def request_restart(self, reason: str = "") -> None:
        """Request a restart of all workers that should run; return immediately.

        Does nothing during a shutdown.
        """
        if not self._shutdown.is_set():
            wanted = [child for child in self.generation.children if child.is_wanted]
            home = self.generation
            self.fleet.begin_restart(wanted, home, reason, Cause.RESTART, home.needs)

    @enable_ki_protection
    def shutdown(self, reason: str = "shutdown requested") -> None:
        """Begin an ordered shutdown; the block is cancelled when it is complete."""
        if not self._shutdown.is_set():
            self._reason = reason
            self._shutdown.set()
            self.fleet.close()
            self.reloader.tell()
            self.readiness.tell()

    @enable_ki_protection
    def hurry(self) -> None:
        """Cut the shutdown short: kill the remaining processes immediately."""
        self._stop_deadline.expire()

    @enable_ki_protection
    def forward_signal(self, number: int) -> None:
        """Forward a signal to the processes of the services that subscribe to it."""
        for unit in self.generation.units.values():
            if number in unit.service.forward_signals:
                for child in unit.children:
                    if child.process is not None:
                        child.process.signal_leader(number)

    @enable_ki_protection
    def health(self, kind: str) -> HealthReport:
        """Return the health of the application and the reasons for it.

        Args:
            kind: ``"startup"``: all workers have been ready once. ``"readiness"``:
                every service that should run has a ready worker. ``"liveness"``: the
                controller responds and has not been without a supervisor for long.
        """
        is_ok, details = self.readiness.health(kind)
        return HealthReport(is_ok=is_ok, details=details)

    @asynccontextmanager
    async def events(self, *, follow: bool = False) -> AsyncIterator[Entries]:
        """Iterate over events: the stored ones, oldest first, then new ones.

        Each is a mapping with the fields that ``events --json`` prints, such as
        ``event``, ``time`` and ``message``. Example::

            async with controller.events(follow=True) as events:
                async for event in events:
                    print(event["message"])

        Args:
            follow: Go on with new events until the block is left.
        """
        with self.event_log.subscribe() as listener:
            past = [EntryBatch(entries=self.event_log.entries)]

            async def receive() -> EntryBatch | None:
                if past:
                    return past.pop()
                if not follow:
                    return None
                entries, missed = await listener.receive()
                return EntryBatch(entries=entries, missed=missed)

            yield Entries(receive)

    @asynccontextmanager
    async def logs(
        self, *names: str, tail: int = 100, follow: bool = False
    ) -> AsyncIterator[Entries]:
        """Iterate over the workers' output lines; see `events`.

        Args:
            names: Workers (``web.0``) or services (``web``); none: all.
            tail: Number of past lines, of all workers together.
            follow: Go on with new lines until the block is left.

        Raises:
            NoSuchWorkerError: a name is unknown.
            UnavailableError: output is not captured: see *output* of
                `open_controller`.
        """
        hub = self.captured_output()
        chosen = {child.name for child in self.choose(names)} if names else None
        with hub.subscribe(chosen) as subscription:
            past = [EntryBatch(entries=hub.tail(chosen, tail))]

            async def receive() -> EntryBatch | None:
                if past:
                    return past.pop()
                batch = await anext(subscription, None) if follow else None
                if batch is None:
                    return None
                return EntryBatch(entries=batch.entries, missed=batch.missed)

            yield Entries(receive)

    @enable_ki_protection
    async def attend(self) -> None:
        """Make one full pass of supervision: wait until each child's task has run once.

        Feeds the watchdog of the service manager: if this hangs, supervision hangs.
        """
        async with open_nursery() as nursery:
            for child in (*self.everyone(), self.supervisor):
                nursery.start_soon(child.wait_attended)

    @property
    def is_stopping(self) -> bool:
        """Whether a shutdown is in progress."""
        return self._shutdown.is_set()

    @property
    def hub(self) -> OutputHub | None:
        """Hub that drains the children's output; None: output is not captured."""
        return self.generation_factory.context.hub

    def captured_output(self) -> OutputHub:
        """Return the hub that stores the output of workers.

        Raises:
            UnavailableError: the output of no worker is captured.
        """
        is_captured = self.generation_factory.context.is_captured
        services = self.application.services
        if self.hub is None or not (is_captured or any(s.log_file for s in services)):
            raise UnavailableError(
                "the output of workers is not captured (open_controller(output=None)); "
                "it goes where this program's output goes"
            )
        return self.hub

    def socket_keys(self, service: str) -> Mapping[str, str]:
        """Return a mapping from *service*'s socket names to their keys here."""
        return self.generation.launchers.socket_keys.get(service, {})

    # Callbacks of the children: see `Watcher`.

    def on_change(self, child: Child) -> None:
        """Update the supervisor's copy and the number of workers not ready."""
        self._shortages.on_change(child)
        if child is self.supervisor:
            return
        if self.fleet.generation_of(child) is self.generation:
            self.readiness.on_change(child)
            if child.has_exited_for_good and not self.is_stopping:
                self._check_over()
        self.fleet.on_change(child)
        self.link.tell(child)

    def on_process(self, child: Child, process: Process, is_running: bool) -> None:
        """Route the notifications of *process* to *child*; tell the guardian of it."""
        if is_running:
            self._orphans.watch(process.pid)
            self.post_mortems.kills.watch(process.pid)
            plan = _SUPERVISOR_ALONE if child is self.supervisor else child.plan.stop
            self._guardian.watch(process.pid, plan)
            channel = self.generation_factory.context.channels.pop(process.pid, None)
            self.notifications.add(process.pid, child, channel)
        else:
            if child is self.supervisor:
                self.link.hang_up()
            self.notifications.remove(process.pid)
            self.load_control.forget(process.pid)
            self._guardian.forget(process.pid)
            output = self.generation_factory.context.outputs.pop(process.pid, None)
            self.post_mortems.examine(child, process, output)

    def on_event(self, event: Event) -> None:
        """Log *event* and pass it to the callback."""
        self.event_log.add(event)
        self._on_event(event)
        for more in self._shortages.on_event(event):
            self.on_event(more)

    def _lost_code(self, child: Child) -> str:
        if child.process is None:
            return ""  # about to be started anyway, and reports the error itself
        return self.generation.launchers.forkers.problem_of(child.plan.service)

    # Changes to the set of workers.

    def launch(self, children: Iterable[Child]) -> None:
        """Run *children*; report each, even while it waits for its dependencies."""
        for child in children:
            if self.fleet.generation_of(child) is self.generation:
                self.readiness.expect(child)
            self.link.tell(child)
            self.nursery.start_soon(self._run_child, child)

    def set_count(
        self, generation: Generation, unit: Unit, count: int
    ) -> tuple[list[Child], list[Child]]:
        """Resize *unit*; return the workers to start and the workers to stop."""
        before = len(unit.children)
        if count == before:
            return [], []
        name = unit.service.name
        self.on_event(ServiceScaled(name=name, before=before, count=count))
        leaving = unit.children[count:]
        del unit.children[count:]
        begun = [generation.make_child(unit.service, i) for i in range(before, count)]
        unit.children += begun
        self.fleet.assign(begun, generation)
        self.launch(begun)
        self.retire(leaving, Cause.SCALE)
        for child in leaving:
            self.fleet.on_change(child)  # wake its dependents
            index = int(child.name.rpartition(".")[2])
            self.nursery.start_soon(self._release_sockets, generation, child, index)
        return begun, leaving

    def retire(self, children: Iterable[Child], cause: Cause, reason: str = "") -> None:
        """Stop *children* for good; forget them when they have exited."""
        leaving = list(children)
        self.dismiss(leaving)
        for child in leaving:
            child.retire(cause, reason)

    def _retire_one(self, child: Child, cause: Cause, reason: str) -> None:
        if child not in self._leaving:
            self.dismiss([child])
        child.retire(cause, reason)

    def dismiss(self, children: Collection[Child]) -> None:
        """Exclude *children* from readiness; they are about to be stopped for good."""
        self._leaving.update(children)
        self.fleet.crashes.dismissed.update(children)
        for child in children:
            self.readiness.dismiss(child)
        self.readiness.tell()
        self.link.tell_together(children)

    def announce(self, children: Iterable[Child]) -> None:
        """Show *children*, which are not running yet, in `status`."""
        self.link.tell_together(children)

    def forget(self, children: Iterable[Child]) -> None:
        """Remove *children*, whose processes are gone, from `status`."""
        for child in children:
            self.fleet.forget(child)
            self.link.tell_gone(child)

    async def wait_forgotten(self, children: Collection[Child]) -> None:
        """Wait until *children*, which were retired, have been removed from `status`.

        A client that is then told of their exit no longer finds them in `status`.
        """
        while any(child in self._leaving for child in children):
            await self.readiness.wait_news()
        self.link.flush()

    def take_over(self, generation: Generation, launcher: SupervisorLauncher) -> None:
        """Make *generation* the current one."""
        self.generation = generation
        news, self._taken_over = self._taken_over, trio.Event()
        news.set()
        self.application = generation.application
        self.fleet.table.max_concurrently = self.application.max_restarts_concurrently
        self.readiness.count_again()
        self.link.tell_together(self.everyone())
        self._launcher = launcher
        self.supervisor.spawn = launcher
        self._warn_of_stop()

    async def wait_take_over(self) -> None:
        """Wait until another generation has taken over."""
        await self._taken_over.wait()

    async def publish(self) -> None:
        """Flush status and log, so that the client sees the result immediately.

        If the reader of the log is slow, the wait is short.
        """
        self.link.flush()
        if self.hub is not None:
            with trio.move_on_after(_LOG_PATIENCE):
                await self.hub.flush()

    async def ask(self, do: str, arguments: Object) -> Object:
        """Call the supervisor; see `SupervisorLink.ask`."""
        return await self.link.ask(do, arguments)

    def renew_supervisor(self, reason: str = "reload") -> None:
        """Restart the supervisor once it has sent the results of finished calls."""
        self.link.retire()
        self.nursery.start_soon(self._renew_supervisor, reason)

    def choose(self, names: Iterable[str] | None) -> list[Child]:
        """Return the workers of *names*; None: all except finished one-shot jobs.

        Raises:
            NoSuchWorkerError: a name is unknown.
        """
        if names is None:
            every = self.generation.children
            return [c for c in every if c.standing is not Standing.EXITED_OK]
        services = {n: unit.children for n, unit in self.generation.units.items()}
        return choose(names, self.children, services)

    def not_ready(self, services: Iterable[str]) -> dict[str, str]:
        """Return the workers of *services* that are not ready, with their states."""
        units = self.generation.units
        return {
            child.name: child.state.value
            for name in services
            if name in units
            for child in units[name].children
            if child.state is not State.READY
        }

    async def check_startable(self, services: Iterable[str]) -> None:
        """Check that everything that processes of *services* need is present.

        Raises:
            SpecError: something is missing; the message lists all of it.
        """
        await self.generation_factory.check_startable(
            self.application, set(services), were_started=True
        )

    def check_capacity(self, more: int) -> None:
        """Check that there are file descriptors for *more* workers.

        Raises:
            PlatformError: there are too few.
        """
        check_capacity(
            len(list(self.everyone())) + more,
            is_captured=self.generation_factory.context.is_captured,
            may_raise=self.owns_process,
            more=more,
        )

    def check_has_workers(self, names: Iterable[str], verb: str) -> None:
        """Check that each service in *names* has workers to *verb*.

        Raises:
            UnavailableError: one of the services has no workers.
        """
        for name in names:
            unit = self.generation.units.get(name)
            if unit is not None and not unit.children:
                raise UnavailableError(
                    f"{name} has no workers to {verb} (count=0); scale {name}=1 first"
                )

    async def replace(
        self, chosen: Sequence[Child], reason: str, *, max_unavailable: int | None
    ) -> None:
        """Restart *chosen*, and start their stopped dependencies."""
        await self.check_startable(child.plan.service for child in chosen)
        self.check_open()
        await self.fleet.restart(
            [*self._missing_needs(chosen), *chosen],
            self.generation,
            reason,
            needs=self.generation.needs,
            max_unavailable=max_unavailable,
        )

    def _missing_needs(self, chosen: Sequence[Child]) -> list[Child]:
        """Return the stopped dependencies of *chosen*, except finished jobs."""
        needed = needs_of({c.plan.service for c in chosen}, self.generation.needs)
        return [
            child
            for name in needed
            for child in self.generation.units[name].children
            if not (child.is_wanted or child.standing is Standing.EXITED_OK)
            and child not in chosen
        ]

    def check_open(self) -> None:
        """Check that no shutdown is in progress.

        Raises:
            UnavailableError: a shutdown is in progress.
        """
        if self._shutdown.is_set():
            raise UnavailableError("the controller is shutting down")

    # Tasks of the controller.

    async def _run(self) -> None:
        """Run all children; at shutdown stop them, dependents first."""
        self.on_event(
            ServingStarted(
                name="controller", process_id=os.getpid(), socket=self.socket_path
            )
        )
        async with open_nursery() as nursery:
            self.nursery = nursery
            nursery.start_soon(self._run_child, self.supervisor)
            nursery.start_soon(self._serve_links)
            nursery.start_soon(self.fleet.run)
            for child in self.generation.children:
                nursery.start_soon(self._run_child, child)
            await self._shutdown.wait()
            began = trio.current_time()
            self.on_event(ShutdownStarted(name="controller", reason=self._reason))
            nursery.start_soon(self._limit_stop, began)
            await self._stop_all()
            nursery.cancel_scope.cancel()
        seconds = trio.current_time() - began
        self.on_event(ShutdownFinished(name="controller", seconds=seconds))

    async def _limit_stop(self, began: float) -> None:
        """Kill the remaining processes in time to keep the overall `stop_timeout`."""
        if (timeout := self.application.stop_timeout) is None:
            return
        self._stop_deadline.limit(began + kill_after(timeout))
        await trio.sleep_until(began + kill_after(timeout))
        left = tuple(child.name for child in self.everyone() if child.has_process)
        event = ShutdownTimedOut(name="controller", timeout=timeout, left=left)
        self.on_event(event)

    def _warn_of_stop(self) -> None:
        timeouts = {s.name: s.stop_timeout for s in self.application.services}
        limit = self.application.stop_timeout
        if warning := stop_warning(limit, self.application.needs(), timeouts):
            logger.warning("%s", warning)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _run_child(self, child: Child) -> None:
        while any(_is_namesake(child, other) for other in self._leaving):
            await self.readiness.wait_news()
        try:
            await child.run()
        except RestartLimitError as exc:
            self._failure = self._failure or exc
            self.shutdown(str(exc))
        if child in self._leaving:
            self._leaving.discard(child)
            self.forget([child])
            if self.hub is not None and child.name not in self.children:
                self.hub.forget(child.name)
            self.readiness.tell()

    async def _release_sockets(
        self, generation: Generation, child: Child, index: int
    ) -> None:
        await child.wait_state(State.STOPPED, State.FAILED)
        unit = generation.units.get(child.plan.service)
        if unit is not None and len(unit.children) <= index:
            keys = self.socket_keys(child.plan.service)
            self.generation_factory.sockets.release(keys.values(), index)

    async def _serve_links(self) -> None:
        """Serve the connection to each supervisor in turn."""
        while True:
            if (control := self._launcher.take_control()) is not None:
                await self.link.serve(control)
            else:
                await self.supervisor.wait_news()

    async def _stop_all(self) -> None:
        """Stop all workers of all generations, then the supervisor."""
        incoming, leaving = self.reloader.incoming, list(self._leaving)
        homes = {self.fleet.generation_of(child) for child in leaving}
        old = [g for g in homes if g not in (None, self.generation, incoming)]
        generations = [
            *sorted(filter(None, old), key=lambda g: g.number),
            self.generation,
            *([incoming] if incoming is not None else []),
        ]
        children = list(self.everyone())
        operation = stop_all_operation(generations, children, "shutdown")
        await self.fleet.carry_out(operation)
        try:
            check_ended(children)
        except SignalNotPermittedError as exc:
            self._failure = self._failure or exc
        self._workers_stopped.set()
        if self._are_awaiting_stop:
            await self._wait_passed_on()
        self.supervisor.request_stop("shutdown")
        await self.supervisor.wait_state(State.STOPPED)

    def _check_over(self) -> None:
        """Shut down the application if a significant service has exited for good."""
        significant = {
            name: bool(unit.children)
            and all(child.has_exited_for_good for child in unit.children)
            for name, unit in self.generation.units.items()
            if unit.service.significant
        }
        if not is_over(self.application.auto_shutdown, significant):
            return
        ended = [name for name, has_ended in significant.items() if has_ended]
        failed = [
            child
            for name in ended
            for child in self.generation.units[name].children
            if child.state is State.FAILED
        ]
        if failed and self._failure is None:
            how = failed[0].last_exit
            problem = f"{failed[0].name} of a significant service failed ({how})"
            self._failure = SignificantServiceError(problem)
        which = "service" if len(ended) == 1 else "services"
        self.shutdown(f"significant {which} {', '.join(ended)} finished")

    @enable_ki_protection
    async def wait_workers_stopped(self) -> None:
        """Wait until all workers have stopped, after `shutdown`.

        Raises:
            SignalNotPermittedError: a worker could not be stopped.
        """
        self._are_awaiting_stop = True
        await self._workers_stopped.wait()
        if isinstance(self._failure, SignalNotPermittedError):
            raise self._failure

    async def _wait_passed_on(self) -> None:
        """Wait briefly until the supervisor has forwarded the answers sent so far."""
        await trio.sleep(_LAST_WORD)
        with trio.move_on_after(_LAST_WORD):
            # If the supervisor has exited on its own, there is nothing to wait for.
            with suppress(UnavailableError, CallFailedError, ConnectionLostError):
                await self.link.ask("ping", {})

    async def _renew_supervisor(self, reason: str) -> None:
        await self._wait_passed_on()
        if not self.is_stopping:
            self.supervisor.request_restart(reason)

    async def _reap(self) -> None:
        """Reap orphans that were reparented to this process (child subreaper)."""
        while True:
            await trio.sleep(_REAP_INTERVAL)
            forkers = self.generation.launchers.forkers
            preforked = forkers.preforked
            self._orphans.reap(self.notifications.children, preforked)
            forkers.keep_spares(preforked)

    def _on_connected(self, is_connected: bool, *, is_planned: bool) -> None:
        if is_connected:
            self.on_event(
                SupervisorConnected(name="controller", is_back=self._was_connected)
            )
            if not self._was_connected:
                self.nursery.start_soon(self._learn_facts)
            self._was_connected = True
        elif not (is_planned or self._shutdown.is_set()):
            self.on_event(SupervisorLost(name="controller"))
        self.readiness.on_connected(is_connected=is_connected)

    async def _learn_facts(self) -> None:
        """Record the state of the code while its files are still those imported.

        Runs after start-up, so that it does not delay the readiness of workers.
        """
        await run_in_thread(self.generation.learn_facts, abandon_on_cancel=True)


def _is_namesake(child: Child, other: Child) -> bool:
    plan, known = child.plan, other.plan
    is_other = child is not other
    return is_other and (plan.name, plan.generation) == (known.name, known.generation)
