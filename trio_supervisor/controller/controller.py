"""Layer 1: owns the supervisor and all workers, and tells the one of the others."""

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
from trio_supervisor.application import MAX_COUNT, Application, Command
from trio_supervisor.controller.capacity import check_capacity
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import (
    SUPERVISOR_PLAN,
    ChildPlan,
    ExitReport,
    Spawn,
)
from trio_supervisor.controller.child.exit_messages import lifetime_text
from trio_supervisor.controller.child.notifications import NotificationRouter
from trio_supervisor.controller.event_log import EventLog
from trio_supervisor.controller.events import (
    Event,
    ServiceScaled,
    ServingStarted,
    ShutdownFinished,
    ShutdownStarted,
    ShutdownTimedOut,
    StraysStopped,
    SupervisorConnected,
    SupervisorLost,
)
from trio_supervisor.controller.fleet.generation import Generation, Unit
from trio_supervisor.controller.fleet.health import Readiness
from trio_supervisor.controller.fleet.make_generation import GenerationFactory
from trio_supervisor.controller.fleet.ordered_stop import (
    describe_not_permitted,
    stop_all,
    stop_in_order,
    until_ready,
)
from trio_supervisor.controller.fleet.overload import OverloadControl
from trio_supervisor.controller.fleet.planned_restarts import PlannedRestarts
from trio_supervisor.controller.fleet.relations import Relations
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
from trio_supervisor.policy.order import Standing, dependents, needs_of
from trio_supervisor.policy.reload import ReloadPlan
from trio_supervisor.policy.restart import Cause, Ending
from trio_supervisor.policy.shutdown import is_over, kill_after, stop_warning
from trio_supervisor.process.child import Process
from trio_supervisor.process.cleanup.escaped import stop_escaped
from trio_supervisor.process.cleanup.guardian_client import GuardianClient
from trio_supervisor.process.cleanup.orphans import Orphans
from trio_supervisor.process.cleanup.stopping import StopDeadline, StopPlan
from trio_supervisor.process.inspection.machine_load import IdleMachine, Machine
from trio_supervisor.process.output.hub import OutputHub
from trio_supervisor.process.spawn.environment import MARKER_VARIABLE, PROCESS_VARIABLE
from trio_supervisor.process.threads import run_in_thread
from trio_supervisor.tasks import open_nursery
from trio_supervisor.wire.controller_messages import HealthReport
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.workers import WorkerRecord

logger = logging.getLogger(__name__)

# Twice this long a zombie that is nobody's may wait [s].
_REAP_INTERVAL: Final = 1.0
# A supervisor without a controller has nothing to finish.
_SUPERVISOR_ALONE: Final = StopPlan(timeout=0.0)
# Whoever asked for a reload hears of it from the supervisor that is replaced then [s].
_LAST_WORD: Final = 0.05
# An answer is not held up longer by whoever does not read the log [s].
_LOG_PATIENCE: Final = 0.1
OnEvent: TypeAlias = Callable[[Event], None]


class Controller(metaclass=NoPublicConstructor):
    """A running application; made by `open_controller`.

    Its methods are named as those of `Client`. None has a timeout: put
    `trio.fail_after` around it. A method that is cancelled stops waiting; what it
    began goes on.
    """

    application: Application
    """As the newest import declares it; its functions may be names only."""
    socket_path: str
    supervisor: Child
    generation: Generation
    reloader: Reloader
    """Whatever has to do with new generations."""

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
        self.relations = Relations(self, lambda: self.nursery)
        self.planned_restarts = PlannedRestarts(self.everyone, self.relations)
        self.planned_restarts.lost_code = self._lost_code
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
        """Whether a client waits for the end, and has to be told before it."""
        self._reason = ""
        self._failure: SupervisorError | None = None

    def begin(self, generation: Generation, launcher: SupervisorLauncher) -> None:
        """Take in the first generation."""
        self.generation = generation
        self.application = generation.application
        self.planned_restarts.max_concurrently = (
            self.application.max_restarts_concurrently
        )
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
            self.relations.assign(unit.children, generation)
        self.readiness.count_again()
        self._warn_of_stop()

    def make_child(self, plan: ChildPlan, spawn: Spawn) -> Child:
        """Return a worker that does not run yet."""
        child = Child(
            plan,
            spawn,
            self,
            self._rng,
            self._stop_deadline,
            hooks=self.relations,
        )
        child.load_control = self.load_control
        return child

    # For the program that embeds it. An interrupt of its main task waits for the next
    # checkpoint of these.

    @property
    def workers(self) -> tuple[WorkerRecord, ...]:
        """What is known of each worker, in the order of declaration."""
        return tuple(record_of(child) for child in self.generation.children)

    @property
    def children(self) -> Mapping[str, Child]:
        """The workers of the generation in charge, by name."""
        return {child.name: child for child in self.generation.children}

    def everyone(self) -> Iterable[Child]:
        """Return all workers: also those that come, and those that go."""
        incoming = self.reloader.incoming
        every = dict.fromkeys(self.generation.children)
        if incoming is not None:
            every |= dict.fromkeys(incoming.children)
        every |= dict.fromkeys(self._leaving)
        yield from filter(self.knows, every)

    def knows(self, child: Child) -> bool:
        """Return whether *child* is one of `everyone`."""
        return self.relations.generation_of(child) is not None

    def counts(self, child: Child) -> bool:
        """Return whether *child* is of the generation in charge, and to stay."""
        home = self.relations.generation_of(child)
        return home is self.generation and child not in self._leaving

    @enable_ki_protection
    async def wait_ready(self) -> None:
        """Wait until the supervisor and all workers are ready at once.

        There is no timeout: put `trio.fail_after` around it. Should the application
        fail, the block of `open_controller` is cancelled, and this with it.

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
        """Replace workers gracefully: *names* (``web.0``, or ``web``), or all.

        Returns when the new ones are ready. A cancellation leaves the restart going on;
        a rolling one goes no further.

        Args:
            rolling: A few at a time, each batch when the one before is ready.
            max_unavailable: With *rolling*: so many workers of a service at once.

        Raises:
            NoSuchWorkerError: a name means nothing; nothing was restarted.
            SpecError: something that they need is not there; nothing was stopped.
            UnavailableError: one ended for good instead.
        """
        chosen = self.choose(names or None)
        self.check_has_workers(names, "restart")
        limit = max_unavailable if rolling else None
        await self.replace(chosen, reason, max_unavailable=limit)

    @enable_ki_protection
    async def stop(self, *names: str, reason: str = "") -> tuple[str, ...]:
        """End workers, and leave them ended, with those that depend on them.

        Returns the names of all that were stopped, when nothing of them is left: first
        those that need others. A worker of several is stopped alone. One that another
        call has started again meanwhile is not among them.

        Raises:
            NoSuchWorkerError: a name means nothing; nothing was stopped.
        """
        self.reloader.check_idle()
        chosen = self.choose(names)
        # Of which no worker is left to run, after this.
        whole = {
            name
            for name in {child.plan.service for child in chosen}
            if all(
                child in chosen or not child.is_wanted
                for child in self.generation.units[name].children
            )
        }
        affected = dependents(whole, self.generation.needs)
        for name in affected:
            unit = self.generation.units[name]
            # Another stop may be on its way: what it ends has to be waited for, too.
            there = [c for c in unit.children if c.is_wanted or not c.is_down]
            chosen += [child for child in there if child not in chosen]
        stopped: list[str] = []

        def ask(child: Child) -> None:
            child.request_stop(reason)
            stopped.append(child.name)

        await stop_in_order(self.generation, chosen, ask, affected | whole)
        _check_ended(chosen)
        again = {child.name for child in chosen if child.is_wanted}
        return tuple(name for name in dict.fromkeys(stopped) if name not in again)

    @enable_ki_protection
    async def start(self, *names: str) -> None:
        """Start those of *names* that do not run, and all that they depend on.

        Returns when they are up: ready for ``stable_for`` seconds. A job that has done
        its work is not run again for the sake of those that depend on it.

        Raises:
            NoSuchWorkerError: a name means nothing; nothing was started.
            SpecError: something that they need is not there; nothing was started.
            UnavailableError: one exited instead, or a service has no workers; whatever
                this call has started is stopped again.
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
        since = [c.incarnation + (c.state not in running) for c in chosen]
        for child in dict.fromkeys([*begun, *chosen]):
            child.request_start()
        try:
            for child, incarnation in zip(chosen, since, strict=True):
                await until_ready(child, incarnation, self.relations.failed_needs_of)
        except UnavailableError as exc:
            undone = [child for child in begun if child.is_wanted]
            if not undone or self.is_stopping:
                raise
            await stop_in_order(self.generation, undone, _undo_start)
            names_of = ", ".join(child.name for child in undone)
            raise UnavailableError(f"{exc}; stopped again: {names_of}") from exc

    @enable_ki_protection
    async def scale(self, counts: Mapping[str, int]) -> None:
        """Give services another number of workers; no survivor is touched.

        Returns when the new ones are up (ready for ``stable_for`` seconds) and the
        others gone: those with the highest numbers. A reload keeps the count, unless it
        declares another one.

        Raises:
            NoSuchWorkerError: there is no such service; nothing was changed.
            SpecError: something that they need is not there; nothing was changed.
            PlatformError: there are too few file descriptors; nothing was changed.
            UnavailableError: a count is out of range, or everything is being stopped;
                or a new worker exited instead, and the counts are what they were.
            SignalNotPermittedError: a worker that was to end is another user's.
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
            for begun, leaving in changes:
                for child in begun:
                    await until_ready(child, 1, self.relations.failed_needs_of)
                await self.wait_forgotten(leaving)
        except UnavailableError as exc:
            units = self.generation.units
            # What another call, or a reload, has changed since is left alone.
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
        _check_ended(child for _, leaving in changes for child in leaving)

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
        """Import the application afresh, and let a new generation take over.

        The new workers are started beside the old ones; these are stopped once all
        those are ready. If one does not become ready, all is as it was.

        Args:
            application: The new one, where it does not come from a target.
            changed_only: Keep the workers whose declaration and code are as they were.
            dry_run: Only return what would be done.

        Raises:
            TargetError: it cannot be imported; nothing was changed.
            ReloadError: it did not become ready; the message says why.
            SignalNotPermittedError: the new generation has taken over, and a worker
                of the old one goes on, for it belongs to another user.
            UnavailableError: a reload is under way, or everything is being stopped.
        """
        return await self.reloader.reload(
            application, changed_only=changed_only, dry_run=dry_run
        )

    @enable_ki_protection
    async def abort_reload(self) -> None:
        """Give up the reload that is under way; return when all is as it was.

        Whoever asked for it gets a `ReloadError`.

        Raises:
            UnavailableError: there is none, or the new generation has taken over.
        """
        await self.reloader.abort()

    @enable_ki_protection
    def request_restart(self, reason: str = "") -> None:
        """Have all workers replaced that run, or are to; return at once.

        Does nothing once everything is being stopped.
        """
        if not self._shutdown.is_set():
            wanted = [child for child in self.generation.children if child.is_wanted]
            self.nursery.start_soon(self._replace, wanted, reason, Cause.RESTART)

    @enable_ki_protection
    def shutdown(self, reason: str = "asked to") -> None:
        """Begin to stop everything in order; the block is cancelled when it is done."""
        if not self._shutdown.is_set():
            self._reason = reason
            self._shutdown.set()
            self.planned_restarts.close()
            self.reloader.tell()
            self.readiness.tell()

    @enable_ki_protection
    def hurry(self) -> None:
        """Kill whatever does not end by itself at once, instead of waiting for it."""
        self._stop_deadline.expire()

    @enable_ki_protection
    def forward_signal(self, number: int) -> None:
        """Send a signal to the processes of the services that want it."""
        for unit in self.generation.units.values():
            if number in unit.service.forward_signals:
                for child in unit.children:
                    if child.process is not None:
                        child.process.signal_leader(number)

    @enable_ki_protection
    def health(self, kind: str) -> HealthReport:
        """Return the health of the application, and what it is based on.

        Args:
            kind: ``"startup"``: all workers were ready once. ``"readiness"``: every
                service that is to run has a worker that is ready. ``"liveness"``: the
                controller answers, and is not without a supervisor for long.
        """
        is_ok, details = self.readiness.health(kind)
        return HealthReport(is_ok=is_ok, details=details)

    @asynccontextmanager
    async def events(self, *, follow: bool = False) -> AsyncIterator[Entries]:
        """Iterate over events: those that are kept, oldest first, then new ones.

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
        """Iterate over lines that workers have printed, as `events` does over events.

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
        """Make one full pass of supervision: have every child looked after once.

        What hangs here hangs for good: a watchdog above us is to know.
        """
        async with open_nursery() as nursery:
            for child in (*self.everyone(), self.supervisor):
                nursery.start_soon(child.wait_attended)

    @property
    def is_stopping(self) -> bool:
        """Whether everything is being stopped."""
        return self._shutdown.is_set()

    @property
    def hub(self) -> OutputHub | None:
        """What drains the children's output."""
        return self.generation_factory.context.hub

    def captured_output(self) -> OutputHub:
        """Return what keeps the output of workers.

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
        """Return the names of *service*'s sockets, and by which each is kept here."""
        return self.generation.launchers.socket_keys.get(service, {})

    # For its children: see `Watcher`, and `RelationsOwner` in `relations`.

    def on_change(self, child: Child) -> None:
        """Keep the supervisor's picture, and the count of those not ready."""
        self._shortages.on_change(child)
        if child is self.supervisor:
            return
        if self.relations.generation_of(child) is self.generation:
            self.readiness.on_change(child)
            if child.has_exited_for_good and not self.is_stopping:
                self._check_over()
        self.relations.on_change(child)
        self.reloader.on_change(child)
        self.planned_restarts.on_change(child)
        self.link.tell(child)

    def on_process(self, child: Child, process: Process, is_running: bool) -> None:
        """Route what the process says to *child*, and have it guarded."""
        if is_running:
            self._orphans.watch(process.pid)
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
        """Pass it on."""
        self.event_log.add(event)
        self._on_event(event)
        for more in self._shortages.on_event(event):
            self.on_event(more)

    def _lost_code(self, child: Child) -> str:
        if child.process is None:
            return ""  # it is to be started anyway, and says so itself
        return self.generation.launchers.forkers.problem_of(child.plan.service)

    def replace_overdue(self, child: Child) -> None:
        """Replace *child* when there is room."""
        reason = lifetime_text(child.plan.max_lifetime)
        self.nursery.start_soon(self._replace, [child], reason, Cause.LIFETIME)

    async def _replace(
        self, children: Sequence[Child], reason: str, cause: Cause
    ) -> None:
        needs = self.generation.needs
        # Else one is on its way down for another reason, which is told of already.
        with suppress(UnavailableError):
            await self.planned_restarts.restart(children, reason, cause, needs=needs)

    async def stop_escaped(self, child: Child) -> None:
        """End what has left the group of the process of *child* that just ended."""
        if not self.generation_factory.is_subreaper:
            return
        known = {
            *self.notifications.children,
            self._guardian.process_id,
            *self.generation.launchers.forkers.process_ids,
        }
        marks = [
            f"{PROCESS_VARIABLE}={child.plan.mark(child.incarnation)}",
            # Another controller in this program may have one of the same name.
            f"{MARKER_VARIABLE}={self.generation_factory.context.marker}",
        ]
        ended = await stop_escaped(marks, known, child.plan.stop, self._stop_deadline)
        if ended:
            self.on_event(
                StraysStopped(
                    name=child.name,
                    process_ids=tuple(ended),
                    commands=tuple(ended.values()),
                )
            )

    async def dump_stacks(self, child: Child, process: Process, cause: str) -> None:
        """Keep where all of *process* stands, before it is ended for *cause*."""
        await self.post_mortems.dump_stacks(child, process, cause)

    async def find_cause(self, child: Child, process: Process) -> None:
        """Find out what ended *process* on its own, where what it printed says so."""
        home = self.relations.generation_of(child) or self.generation
        unit = home.units.get(child.plan.service)
        service = None if unit is None else unit.service
        arguments = service.arguments if isinstance(service, Command) else ()
        names = {pid: each.name for pid, each in self.notifications.children.items()}
        names[os.getpid()] = "the controller"
        await self.post_mortems.find_cause(child, arguments, names)

    def exit_report_of(self, child: Child, ending: Ending) -> ExitReport:
        """Return what is left to say of the process of *child* that just ended."""
        return self.post_mortems.exit_report_of(child, ending)

    # For what changes the set of workers.

    def launch(self, children: Iterable[Child]) -> None:
        """Run *children*; each is told of, whatever it waits for."""
        for child in children:
            if self.relations.generation_of(child) is self.generation:
                self.readiness.expect(child)
            self.link.tell(child)
            self.nursery.start_soon(self._run_child, child)

    def set_count(
        self, generation: Generation, unit: Unit, count: int
    ) -> tuple[list[Child], list[Child]]:
        """Have *unit* grow or shrink; return who comes and who goes."""
        before = len(unit.children)
        if count == before:
            return [], []
        name = unit.service.name
        self.on_event(ServiceScaled(name=name, before=before, count=count))
        leaving = unit.children[count:]
        del unit.children[count:]
        begun = [generation.make_child(unit.service, i) for i in range(before, count)]
        unit.children += begun
        self.relations.assign(begun, generation)
        self.launch(begun)
        self.retire(leaving, Cause.SCALE)
        for child in leaving:
            self.relations.on_change(child)  # nobody waits for it any more
            index = int(child.name.rpartition(".")[2])
            self.nursery.start_soon(self._release_sockets, generation, child, index)
        return begun, leaving

    def retire(self, children: Iterable[Child], cause: Cause, reason: str = "") -> None:
        """Have *children* end for good; they are forgotten when they have."""
        leaving = list(children)
        self.dismiss(leaving)
        for child in leaving:
            child.retire(cause, reason)

    def dismiss(self, children: Collection[Child]) -> None:
        """Count *children* no more: they are about to be ended for good."""
        self._leaving.update(children)
        self.relations.dismiss(children)
        for child in children:
            self.readiness.dismiss(child)
        self.readiness.tell()
        self.link.tell_together(children)

    def announce(self, children: Iterable[Child]) -> None:
        """Have *children*, which do not run yet, seen by `status`."""
        self.link.tell_together(children)

    def forget(self, children: Iterable[Child]) -> None:
        """Have *children*, of which no process is left, in no picture any more."""
        for child in children:
            self.relations.forget([child])
            self.link.tell_gone(child)

    async def wait_forgotten(self, children: Collection[Child]) -> None:
        """Wait until *children*, which are ended for good, are in no picture any more.

        Whoever is told next that they have ended finds them gone from `status`, too.
        """
        while any(child in self._leaving for child in children):
            await self.readiness.wait_news()
        self.link.flush()

    def take_over(self, generation: Generation, launcher: SupervisorLauncher) -> None:
        """Let *generation* be in charge."""
        self.generation = generation
        news, self._taken_over = self._taken_over, trio.Event()
        news.set()
        self.application = generation.application
        self.planned_restarts.max_concurrently = (
            self.application.max_restarts_concurrently
        )
        self.readiness.count_again()
        self.link.tell_together(self.everyone())
        self._launcher = launcher
        self.supervisor.spawn = launcher
        self._warn_of_stop()

    async def wait_take_over(self) -> None:
        """Wait until another generation is in charge."""
        await self._taken_over.wait()

    async def publish(self) -> None:
        """Have status and the log tell what was done: whoever asked may look at once.

        A log that nobody reads is waited for a moment only.
        """
        self.link.flush()
        if self.hub is not None:
            with trio.move_on_after(_LOG_PATIENCE):
                await self.hub.flush()

    async def ask(self, do: str, arguments: Object) -> Object:
        """Call the supervisor; see `SupervisorLink.ask`."""
        return await self.link.ask(do, arguments)

    def renew_supervisor(self, reason: str = "reload") -> None:
        """Have the supervisor replaced, once it has told what is done so far."""
        self.link.retire()
        self.nursery.start_soon(self._renew_supervisor, reason)

    def choose(self, names: Iterable[str] | None) -> list[Child]:
        """Return what *names* mean; None: all but those that have done their work.

        Raises:
            NoSuchWorkerError: one of them means nothing.
        """
        if names is None:
            every = self.generation.children
            return [c for c in every if c.standing is not Standing.EXITED_OK]
        services = {n: unit.children for n, unit in self.generation.units.items()}
        return choose(names, self.children, services)

    def not_ready(self, services: Iterable[str]) -> dict[str, str]:
        """Return which workers of *services* are not ready, and what they are."""
        units = self.generation.units
        return {
            child.name: child.state.value
            for name in services
            if name in units
            for child in units[name].children
            if child.state is not State.READY
        }

    async def check_startable(self, services: Iterable[str]) -> None:
        """Refuse to start processes of *services* where something they need is missing.

        Raises:
            SpecError: it is; all of it is listed.
        """
        await self.generation_factory.check_startable(
            self.application, set(services), were_started=True
        )

    def check_capacity(self, more: int) -> None:
        """Refuse to start *more* workers than there are file descriptors for.

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
        """Refuse to do what *verb* says to a service that has no workers.

        Raises:
            UnavailableError: one of *names* is such a service.
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
        """Restart *chosen*, and start what they need and is stopped."""
        await self.check_startable(child.plan.service for child in chosen)
        self.check_open()
        await self.planned_restarts.restart(
            [*self._missing_needs(chosen), *chosen],
            reason,
            needs=self.generation.needs,
            max_unavailable=max_unavailable,
        )

    def _missing_needs(self, chosen: Sequence[Child]) -> list[Child]:
        """Return what *chosen* depend on, and is neither to run nor done."""
        needed = needs_of({c.plan.service for c in chosen}, self.generation.needs)
        return [
            child
            for name in needed
            for child in self.generation.units[name].children
            if not (child.is_wanted or child.standing is Standing.EXITED_OK)
            and child not in chosen
        ]

    def check_open(self) -> None:
        """Refuse what makes no sense any more.

        Raises:
            UnavailableError: everything is being stopped.
        """
        if self._shutdown.is_set():
            raise UnavailableError("the controller is shutting down")

    # Its tasks.

    async def _run(self) -> None:
        """Own all children, and end them, dependents first."""
        self.on_event(
            ServingStarted(
                name="controller", process_id=os.getpid(), socket=self.socket_path
            )
        )
        async with open_nursery() as nursery:
            self.nursery = nursery
            nursery.start_soon(self._run_child, self.supervisor)
            nursery.start_soon(self._serve_links)
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
        """Kill what has not stopped in time to end within the whole `stop_timeout`."""
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
        """Talk to each supervisor in turn."""
        while True:
            if (control := self._launcher.take_control()) is not None:
                await self.link.serve(control)
            else:
                await self.supervisor.wait_news()

    async def _stop_all(self) -> None:
        """End all workers of all generations, then the supervisor."""
        incoming, leaving = self.reloader.incoming, list(self._leaving)
        homes = {self.relations.generation_of(child) for child in leaving}
        old = [g for g in homes if g not in (None, self.generation, incoming)]
        generations = [
            *sorted(filter(None, old), key=lambda g: g.number),
            self.generation,
            *([incoming] if incoming is not None else []),
        ]

        def ask(child: Child) -> None:
            if child in self._leaving:
                child.retire(Cause.STOP, "shutdown")
            else:
                child.request_stop("shutdown")

        children = list(self.everyone())
        await stop_all(generations, children, ask)
        try:
            _check_ended(children)
        except SignalNotPermittedError as exc:
            self._failure = self._failure or exc
        self._workers_stopped.set()
        if self._are_awaiting_stop:
            await self._wait_passed_on()
        self.supervisor.request_stop("shutdown")
        await self.supervisor.wait_state(State.STOPPED)

    def _check_over(self) -> None:
        """End the application if a significant service has ended for good."""
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
            SignalNotPermittedError: one could not be ended.
        """
        self._are_awaiting_stop = True
        await self._workers_stopped.wait()
        if isinstance(self._failure, SignalNotPermittedError):
            raise self._failure

    async def _wait_passed_on(self) -> None:
        """Wait until the supervisor has passed on what was answered; not for long."""
        await trio.sleep(_LAST_WORD)
        with trio.move_on_after(_LAST_WORD):
            # Where it is gone by itself, there is nobody to wait for.
            with suppress(UnavailableError, CallFailedError, ConnectionLostError):
                await self.link.ask("ping", {})

    async def _renew_supervisor(self, reason: str) -> None:
        await self._wait_passed_on()
        if not self.is_stopping:
            self.supervisor.request_restart(reason)

    async def _reap(self) -> None:
        """Bury what was orphaned and came to us, being a subreaper."""
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
        """Look at the code while its files are still what was imported.

        Not at the very start, where it would have the workers ready later.
        """
        await run_in_thread(self.generation.learn_facts, abandon_on_cancel=True)


def _is_namesake(child: Child, other: Child) -> bool:
    plan, known = child.plan, other.plan
    is_other = child is not other
    return is_other and (plan.name, plan.generation) == (known.name, known.generation)


def _check_ended(children: Iterable[Child]) -> None:
    """Say which of *children* could not be ended.

    Raises:
        SignalNotPermittedError: there is one.
    """
    if problems := describe_not_permitted(children):
        raise SignalNotPermittedError(problems)


def _undo_start(child: Child) -> None:
    child.request_stop("start failed")
