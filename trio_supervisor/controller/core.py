"""Connect the parts of a controller, and run them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import ClassVar, Final, TypeAlias

import trio

from trio_supervisor.application import Application
from trio_supervisor.controller.aftermath import ProcessAftermath
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
    ServingStarted,
    SupervisorConnected,
    SupervisorLost,
)
from trio_supervisor.controller.fleet.fleet import Fleet
from trio_supervisor.controller.fleet.generation import Generation
from trio_supervisor.controller.fleet.health import Readiness
from trio_supervisor.controller.fleet.make_generation import GenerationFactory
from trio_supervisor.controller.fleet.members import Members
from trio_supervisor.controller.fleet.overload import OverloadControl
from trio_supervisor.controller.fleet.reload import Reloader
from trio_supervisor.controller.fleet.shortages import Shortages
from trio_supervisor.controller.launch.launchers import SupervisorLauncher
from trio_supervisor.controller.metrics import MetricsBank
from trio_supervisor.controller.observer import Observer
from trio_supervisor.controller.policy_questions import PolicyQuestions
from trio_supervisor.controller.post_mortem.collect import PostMortemCollector
from trio_supervisor.controller.post_mortem.store import PostMortemStore
from trio_supervisor.controller.shutdown import OrderedShutdown
from trio_supervisor.controller.supervisor_link import SupervisorLink
from trio_supervisor.controller.verbs import Verbs
from trio_supervisor.errors import UnavailableError
from trio_supervisor.link.peer import Answer, Dispatch, IncomingCall
from trio_supervisor.process.child import Process
from trio_supervisor.process.cleanup.guardian_client import GuardianClient
from trio_supervisor.process.cleanup.orphans import Orphans
from trio_supervisor.process.cleanup.stopping import StopDeadline, StopPlan
from trio_supervisor.process.inspection.machine_load import IdleMachine, Machine
from trio_supervisor.process.output.hub import OutputHub
from trio_supervisor.process.threads import run_in_thread
from trio_supervisor.tasks import ProtectedNursery, open_nursery
from trio_supervisor.wire.json_tree import Object

# An unknown zombie is reaped after at most twice this interval [s].
_REAP_INTERVAL: Final = 1.0
# A supervisor without a controller has no work to finish, so no grace period.
_SUPERVISOR_ALONE: Final = StopPlan(timeout=0.0)
# Longest delay of an answer when the reader of the log is slow [s].
_LOG_PATIENCE: Final = 0.1
OnEvent: TypeAlias = Callable[[Event], None]


class ControllerCore:
    """All parts of a running application; `Controller` is its public face.

    It is the `child_spec.Watcher` of all children.
    """

    supervisor: Child
    nursery: ProtectedNursery
    aftermath_type: ClassVar[type[ProcessAftermath]] = ProcessAftermath
    collector_type: ClassVar[type[PostMortemCollector]] = PostMortemCollector

    def __init__(
        self,
        socket_path: str,
        generation_factory: GenerationFactory,
        guardian: GuardianClient,
        stop_deadline: StopDeadline,
        on_event: OnEvent,
        answer: Callable[[ControllerCore, IncomingCall], Answer],
        store: PostMortemStore | None,
        *,
        owns_process: bool,
        machine: Machine | None = None,
    ) -> None:
        self.socket_path = socket_path
        self.generation_factory = generation_factory
        self.owns_process = owns_process
        self.rng = random.Random()
        self.event_log = EventLog()
        self.metrics = MetricsBank()
        self.observer = Observer()
        self._on_event = on_event
        self._guardian = guardian
        self._stop_deadline = stop_deadline
        self._make_fleet(partial(answer, self))
        self._make_aftermath(store)
        self.load_control = OverloadControl(
            self.everyone, self.on_event, machine or IdleMachine()
        )
        self._orphans = Orphans(is_alone=owns_process)
        self._shortages = Shortages()
        self._was_connected = False
        self._taken_over = trio.lowlevel.ParkingLot()

    def _make_fleet(self, dispatch: Dispatch) -> None:
        factory = self.generation_factory
        self.members = Members(
            self.on_event,
            lambda exc: self.shutdown.fail(exc),
            lambda: self.nursery,
            factory.sockets,
            factory.context.hub,
        )
        deadline = self._stop_deadline
        self.shutdown = OrderedShutdown(self.members, deadline, self.on_event)
        self.reloader = Reloader(self)
        self.verbs = Verbs(
            self.members, self.reloader, self.shutdown, factory, self.owns_process
        )
        self.link = SupervisorLink(self, dispatch, self._on_connected)
        self.readiness = Readiness(self)
        self.members.link, self.members.readiness = self.link, self.readiness

    def _make_aftermath(self, store: PostMortemStore | None) -> None:
        context = self.generation_factory.context
        self.notifications = NotificationRouter(lambda: self.nursery, context.directory)
        self.post_mortems = self.collector_type(
            store,
            lambda: self.link,
            self.on_event,
            lambda: self.nursery,
            context.boxes,
        )
        self._policy = PolicyQuestions(self)
        self._aftermath = self.aftermath_type(
            self.fleet,
            self.generation_factory,
            self._guardian,
            self.notifications,
            self.post_mortems,
            self._stop_deadline,
            self._policy,
        )

    def begin(self, generation: Generation, launcher: SupervisorLauncher) -> None:
        """Install the first generation."""
        self._launcher = launcher
        self.supervisor = Child(
            SUPERVISOR_PLAN, launcher, self, self.rng, self._stop_deadline
        )
        self.supervisor.load_control = self.load_control
        self.members.begin(generation)
        self._adopt()

    def make_child(self, plan: ChildPlan, spawn: Spawn) -> Child:
        """Return a worker that is not running yet."""
        child = Child(
            plan,
            spawn,
            self,
            self.rng,
            self._stop_deadline,
            permission=self.fleet,
            aftermath=self._aftermath,
        )
        child.load_control = self.load_control
        return child

    # What the parts read of each other.

    @property
    def application(self) -> Application:
        """Declaration from the latest import; functions may be names only."""
        return self.generation.application

    @property
    def generation(self) -> Generation:
        """The current generation."""
        return self.members.generation

    @property
    def fleet(self) -> Fleet:
        """What carries out operations."""
        return self.members.fleet

    @property
    def children(self) -> Mapping[str, Child]:
        """Workers of the current generation, by name."""
        return self.members.by_name

    @property
    def is_stopping(self) -> bool:
        """Whether a shutdown is in progress."""
        return self.shutdown.is_requested

    @property
    def hub(self) -> OutputHub | None:
        """Hub that drains the children's output; None: output is not captured."""
        return self.generation_factory.context.hub

    def everyone(self) -> Iterator[Child]:
        """Return all workers, including those of a reload and those being stopped."""
        return self.members.everyone()

    def knows(self, child: Child) -> bool:
        """Return whether *child* is one of `everyone`."""
        return self.members.knows(child)

    def counts(self, child: Child) -> bool:
        """Return whether *child* is in the current generation and not being removed."""
        return self.members.counts(child)

    def check_open(self) -> None:
        """Check that no shutdown is in progress.

        Raises:
            UnavailableError: a shutdown is in progress.
        """
        self.shutdown.check_open()

    def check_capacity(self, more: int) -> None:
        """See `Verbs.check_capacity`."""
        self.verbs.check_capacity(more)

    def captured_output(self) -> OutputHub:
        """Return the hub that stores the output of workers.

        Raises:
            UnavailableError: the output of no worker is captured.
        """
        is_captured = self.generation_factory.context.is_captured
        services = self.application.services
        if self.hub is None or not (
            is_captured or any(s.has_own_log for s in services)
        ):
            raise UnavailableError(
                "the output of workers is not captured (open_controller(output=None)); "
                "it goes where this program's output goes"
            )
        return self.hub

    # Callbacks of the children: see `Watcher`.

    def on_change(self, child: Child) -> None:
        """Update the supervisor's copy and the number of workers not ready."""
        self._shortages.on_change(child)
        if child is self.supervisor:
            return
        if self.fleet.generation_of(child) is self.generation:
            self.readiness.on_change(child)
            if child.has_exited_for_good and not self.is_stopping:
                self.shutdown.check_over(self.application)
        self.fleet.on_change(child)
        self.link.tell(child)

    def on_process(self, child: Child, process: Process, is_running: bool) -> None:
        """Route the notifications of *process* to *child*; tell the guardian of it."""
        context = self.generation_factory.context
        if is_running:
            self._orphans.watch(process.pid)
            self.post_mortems.kills.watch(process.pid)
            plan = _SUPERVISOR_ALONE if child is self.supervisor else child.plan.stop
            self._guardian.watch(process.pid, plan)
            if (counts := context.counts.pop(process.pid, None)) is not None:
                self.metrics.begin(child, self.fleet.service_of(child), counts)
            channel = context.channels.pop(process.pid, None)
            self.notifications.add(process.pid, child, channel)
            self._policy.tell_started(child)
        else:
            if child is self.supervisor:
                self.link.hang_up()
            self.notifications.remove(process.pid)
            self.metrics.end(process.pid)
            self.load_control.forget(process.pid)
            self._guardian.forget(process.pid)
            output = context.outputs.pop(process.pid, None)
            self.post_mortems.examine(child, process, output)

    def on_event(self, event: Event) -> None:
        """Log *event* and pass it to the callback."""
        self.event_log.add(event)
        self.metrics.on_event(event)
        self.observer.on_event(event)
        self._on_event(event)
        for more in self._shortages.on_event(event):
            self.on_event(more)

    # The reload's view.

    def take_over(self, generation: Generation, launcher: SupervisorLauncher) -> None:
        """Make *generation* the current one."""
        self.members.generation = generation
        self._taken_over.unpark_all()
        self.link.tell_together(self.everyone())
        self._launcher = launcher
        self.supervisor.spawn = launcher
        self._adopt()

    async def wait_take_over(self) -> None:
        """Wait until another generation has taken over."""
        await self._taken_over.park()

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

    # Tasks.

    async def run(self) -> None:
        """Run all children; at shutdown stop them, dependents first."""
        self.on_event(
            ServingStarted(
                name="controller", process_id=os.getpid(), socket=self.socket_path
            )
        )
        async with open_nursery() as nursery:
            self.nursery = nursery
            nursery.start_soon(self.members.run_child, self.supervisor)
            nursery.start_soon(self._serve_links)
            nursery.start_soon(self.fleet.run)
            for child in self.generation.children:
                nursery.start_soon(self.members.run_child, child)
            await self.shutdown.requested.wait()
            began = await self.shutdown.run(nursery, self.supervisor, self.application)
            nursery.cancel_scope.cancel()
        self.shutdown.finish(began)

    async def reap(self) -> None:
        """Reap orphans that were reparented to this process (child subreaper)."""
        while True:
            await trio.sleep(_REAP_INTERVAL)
            forkers = self.generation.launchers.forkers
            preforked = forkers.preforked
            self._orphans.reap(self.notifications.children, preforked)
            forkers.keep_spares(preforked)

    async def attend(self) -> None:
        """Wait until each child's task has run once."""
        async with open_nursery() as nursery:
            for child in (*self.everyone(), self.supervisor):
                nursery.start_soon(child.wait_attended)

    async def _serve_links(self) -> None:
        """Serve the connection to each supervisor in turn."""
        while True:
            if (control := self._launcher.take_control()) is not None:
                await self.link.serve(control)
            else:
                await self.supervisor.wait_news()

    async def _renew_supervisor(self, reason: str) -> None:
        await self.shutdown.wait_passed_on()
        if not self.is_stopping:
            self.supervisor.request_restart(reason)

    def _adopt(self) -> None:
        """Apply what the application of the current generation declares."""
        limit = self.application.max_restarts_concurrently
        self.fleet.table.max_concurrently = limit
        self.readiness.count_again()
        self.shutdown.warn_of_stop(self.application)

    def _on_connected(self, is_connected: bool, *, is_planned: bool) -> None:
        if is_connected:
            self.on_event(
                SupervisorConnected(name="controller", is_back=self._was_connected)
            )
            if not self._was_connected:
                self.nursery.start_soon(self.learn_facts)
            self._was_connected = True
        elif not (is_planned or self.is_stopping):
            self.on_event(SupervisorLost(name="controller"))
        self.readiness.on_connected(is_connected=is_connected)

    async def learn_facts(self) -> None:
        """Record the state of the code while its files are still those imported.

        Runs after start-up, so that it does not delay the readiness of workers.
        """
        await run_in_thread(self.generation.learn_facts, abandon_on_cancel=True)
