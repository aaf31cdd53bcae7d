"""Runs an application: every child in a nursery, and all of them ended in order."""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import (
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Any, Final, TypeAlias

import trio
from attrs import frozen

from trio_supervisor.controller.child import Child, ChildPlan, Spawn
from trio_supervisor.controller.events import (
    AllReady,
    Event,
    Serving,
    ShuttingDown,
    Stopped,
    Supervised,
    Unsupervised,
)
from trio_supervisor.controller.launch import (
    SUPERVISOR_PLAN,
    Surroundings,
    make_launcher,
    make_supervisor_launcher,
    plan_of,
)
from trio_supervisor.controller.link import SupervisorLink, record_of
from trio_supervisor.controller.names import choose
from trio_supervisor.errors import (
    RestartLimitError,
    UnavailableError,
    UnknownOperationError,
)
from trio_supervisor.link.peer import Answer, Fields, IncomingCall
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.process.child import Process
from trio_supervisor.process.forking import Forker
from trio_supervisor.process.guard import Guard
from trio_supervisor.process.notify import (
    Notification,
    NotifySocket,
)
from trio_supervisor.process.orphans import Orphans
from trio_supervisor.process.sources import (
    Pickled,
    Reference,
)
from trio_supervisor.process.stopping import Patience, StopPlan
from trio_supervisor.spec import AnyService, Application
from trio_supervisor.wire.codec import parse_operation
from trio_supervisor.wire.messages import (
    Restart,
    Shutdown,
    Start,
    Stop,
    WorkerRecord,
)

# Twice this long a zombie that is nobody's may wait [s].
_REAP_INTERVAL: Final = 1.0
# A supervisor without a controller has nothing to finish.
_SUPERVISOR_ALONE: Final = StopPlan(timeout=0.0)
# More than the kernel queues for a datagram socket.
_EARLY: Final = 1024
OnEvent: TypeAlias = Callable[[Event], None]


@frozen(kw_only=True)
class _Group:
    """The children of one service; all are started and stopped together."""

    service: AnyService
    children: list[Child]


class Controller:
    """A running application; made by `open_controller`."""

    def __init__(
        self,
        application: Application,
        socket_path: str,
        sources: Mapping[str, Reference | Pickled],
        surroundings: Surroundings,
        guard: Guard,
        forker: Forker | None,
        patience: Patience,
        on_event: OnEvent,
        *,
        owns_process: bool,
    ) -> None:
        self.application = application
        self.socket_path = socket_path
        self._guard = guard
        self._on_event = on_event
        self._patience = patience
        self._rng = random.Random()
        self._launcher = make_supervisor_launcher(sources, surroundings, forker)
        self.supervisor = self._make_child(SUPERVISOR_PLAN, self._launcher)
        self._groups = [
            _Group(
                service=service,
                children=[
                    self._make_child(
                        plan_of(service, index),
                        make_launcher(service, index, sources, surroundings, forker),
                    )
                    for index in range(service.count)
                ],
            )
            for service in application.services
        ]
        self.children = {
            child.name: child for group in self._groups for child in group.children
        }
        self.link = SupervisorLink(self, self._answer, self._on_connected)
        self._by_pid: dict[int, Child] = {}
        self._forker = forker
        self._notify: NotifySocket | None = None
        self._orphans = Orphans(is_alone=owns_process)
        self._early: deque[Notification] = deque(maxlen=_EARLY)
        """From processes that nobody has told us of yet."""
        self._not_ready = set(self.children)
        self._readiness = trio.Event()
        """Set, and replaced, when something about readiness changes."""
        self._was_connected = False
        self._has_been_ready = False
        self._began = trio.current_time()
        self._shutdown = trio.Event()
        self._reason = ""
        self._failure: RestartLimitError | None = None

    def _make_child(self, plan: ChildPlan, spawn: Spawn) -> Child:
        return Child(plan, spawn, self, self._rng, self._patience, self._hear)

    # For the program that embeds it.

    @property
    def workers(self) -> tuple[WorkerRecord, ...]:
        """What is known of each worker, in the order of declaration."""
        return tuple(record_of(child) for child in self.children.values())

    async def wait_ready(self) -> None:
        """Wait until the supervisor and all workers are ready at once.

        There is no timeout: put `trio.fail_after` around it. Should the application
        fail, the block of `open_controller` is cancelled, and this with it.

        Raises:
            UnavailableError: a worker failed for good; the message names it.
        """
        while self._not_ready or not self.link.is_connected:
            for child in self.children.values():
                if child.state is State.FAILED:
                    raise UnavailableError(f"{child.name} failed: {child.last_exit}")
            readiness = self._readiness
            await readiness.wait()

    async def restart(self, *names: str, reason: str = "") -> None:
        """Replace workers gracefully: *names* (``web.0``, or ``web``), or all.

        Returns when the new ones are ready. A cancellation leaves the restart going on.

        Raises:
            NoSuchWorkerError: a name means nothing; nothing was restarted.
            UnavailableError: one ended for good instead.
        """
        await self._restart(self._choose(names or None), reason)

    async def stop(self, *names: str, reason: str = "") -> None:
        """End workers, and leave them ended. Returns when nothing of them is left.

        Raises:
            NoSuchWorkerError: a name means nothing; nothing was stopped.
        """
        chosen = self._choose(names)
        for child in chosen:
            child.request_stop(reason)
        for child in chosen:
            await child.wait_state(State.STOPPED)

    async def start(self, *names: str) -> None:
        """Start those of *names* that do not run. Returns when they are ready.

        Raises:
            NoSuchWorkerError: a name means nothing; nothing was started.
            UnavailableError: one ended for good instead.
        """
        chosen = self._choose(names)
        self._check_open()
        running = (State.STARTING, State.READY, State.UNHEALTHY)
        since = [c.incarnation + (c.state not in running) for c in chosen]
        for child in chosen:
            child.request_start()
        for child, incarnation in zip(chosen, since, strict=True):
            await _until_ready(child, incarnation)

    def request_restart(self, reason: str = "") -> None:
        """Have all workers replaced that run, or are to; return at once.

        Does nothing once everything is being stopped.
        """
        if not self._shutdown.is_set():
            for child in self.children.values():
                if child.is_wanted:
                    child.request_restart(reason)

    def shutdown(self, reason: str = "asked to") -> None:
        """Begin to stop everything in order; the block is cancelled when it is done."""
        if not self._shutdown.is_set():
            self._reason = reason
            self._shutdown.set()

    def hurry(self) -> None:
        """Kill whatever does not end by itself at once, instead of waiting for it."""
        self._patience.lose()

    # For its children: see `Watcher`.

    def on_change(self, child: Child) -> None:
        """Keep the supervisor's picture, and the count of those not ready."""
        if child is self.supervisor:
            return
        # A worker that is stopped, or that has done its work, is not waited for.
        if child.state in (State.READY, State.STOPPED):
            self._not_ready.discard(child.name)
        else:
            self._not_ready.add(child.name)
        if not self._not_ready or child.state is State.FAILED:
            self._tell_readiness()
        self.link.tell(child)

    def on_process(self, child: Child, process: Process, is_running: bool) -> None:
        """Route what the process says to *child*, and have it guarded."""
        if is_running:
            self._by_pid[process.pid] = child
            self._orphans.watch(process.pid)
            plan = _SUPERVISOR_ALONE if child is self.supervisor else child.plan.stop
            self._guard.watch(process.pid, plan)
            # What it said before we knew its number.
            early = [n for n in self._early if n.process_id == process.pid]
            for notification in early:
                self._early.remove(notification)
                child.notified(notification)
        else:
            if child is self.supervisor:
                self.link.hang_up()
            self._by_pid.pop(process.pid, None)
            self._guard.forget(process.pid)

    def on_event(self, event: Event) -> None:
        """Pass it on."""
        self._on_event(event)

    # Its tasks.

    async def _run(self) -> None:
        """Own all children, and end them in reverse order of start."""
        self._on_event(
            Serving(name="controller", process_id=os.getpid(), socket=self.socket_path)
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_child, self.supervisor)
            nursery.start_soon(self._serve_links)
            for child in self.children.values():
                nursery.start_soon(self._run_child, child)
            await self._shutdown.wait()
            began = trio.current_time()
            self._on_event(ShuttingDown(name="controller", reason=self._reason))
            await self._stop_all()
            nursery.cancel_scope.cancel()
        seconds = trio.current_time() - began
        self._on_event(Stopped(name="controller", seconds=seconds))

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _run_child(self, child: Child) -> None:
        try:
            await child.run()
        except RestartLimitError as exc:
            self._failure = self._failure or exc
            self.shutdown(str(exc))

    async def _serve_links(self) -> None:
        """Talk to each supervisor in turn."""
        while True:
            if (control := self._launcher.take_control()) is not None:
                await self.link.serve(control)
            else:
                await self.supervisor.wait_news()

    async def _stop_all(self) -> None:
        for group in reversed(self._groups):
            for child in group.children:
                child.request_stop("shutdown")
            for child in group.children:
                await child.wait_state(State.STOPPED, State.FAILED)
        self.supervisor.request_stop("shutdown")
        await self.supervisor.wait_state(State.STOPPED)

    async def _route_notifications(self, notify: NotifySocket) -> None:
        self._notify = notify
        while True:
            self._route(await notify.receive())

    def _hear(self) -> None:
        if self._notify is not None:
            for notification in self._notify.receive_now():
                self._route(notification)

    def _route(self, notification: Notification) -> None:
        child = self._by_pid.get(notification.process_id)
        if child is None:
            # A helper of a command, as systemd-notify in a shell script.
            child = self._by_pid.get(_group_of(notification.process_id))
        if child is not None:
            child.notified(notification)
        else:
            self._early.append(notification)

    async def _reap(self) -> None:
        """Bury what was orphaned and came to us, being a subreaper."""
        while True:
            await trio.sleep(_REAP_INTERVAL)
            spares = self._forker.spares if self._forker is not None else set()
            self._orphans.reap(self._by_pid, spares)

    def _on_connected(self, is_connected: bool) -> None:
        if is_connected:
            self._on_event(Supervised(name="controller", is_back=self._was_connected))
            self._was_connected = True
            self._tell_readiness()
        elif not self._shutdown.is_set():
            self._on_event(Unsupervised(name="controller"))

    def _tell_readiness(self) -> None:
        readiness, self._readiness = self._readiness, trio.Event()
        readiness.set()
        if self._has_been_ready or self._not_ready or not self.link.is_connected:
            return
        self._has_been_ready = True
        self._on_event(
            AllReady(
                name="controller",
                workers=len(self.children),
                seconds=trio.current_time() - self._began,
            )
        )

    # Calls that the supervisor passes on.

    def _answer(self, call: IncomingCall) -> Answer:
        match parse_operation(call.do, call.arguments):
            case Restart(names=names, incarnation=incarnation, reason=reason):
                chosen = self._choose(names)
                if incarnation is not None:
                    chosen = [c for c in chosen if c.incarnation == incarnation]
                return self._done(self._restart(chosen, reason or "asked to"))
            case Stop(names=names):
                self._choose(names)
                return self._done(self.stop(*names, reason="asked to"))
            case Start(names=names):
                self._choose(names)
                return self._done(self.start(*names))
            case Shutdown():
                self.shutdown("asked to")
                return {}
        raise UnknownOperationError(f"the controller does not answer {call.do!r:.80}")

    async def _done(self, work: Coroutine[Any, Any, None]) -> Fields:
        try:
            await work
        finally:
            self.link.flush()  # so that whoever asked sees what was done
        return {}

    async def _restart(self, chosen: Sequence[Child], reason: str) -> None:
        self._check_open()
        before = [(child, child.incarnation) for child in chosen]
        for child in chosen:
            child.request_restart(reason)
        for child, incarnation in before:
            await _until_ready(child, incarnation + 1)

    def _check_open(self) -> None:
        if self._shutdown.is_set():
            raise UnavailableError("everything is being stopped")

    def _choose(self, names: Iterable[str] | None) -> list[Child]:
        if names is None:
            return list(self.children.values())
        services = {group.service.name: group.children for group in self._groups}
        return choose(names, self.children, services)


async def _until_ready(child: Child, since: int) -> None:
    ends = (State.READY, State.STOPPED, State.FAILED)
    # At rest and not wanted: a stop has overtaken us.
    while not (child.incarnation >= since and child.state in ends):
        if not child.is_wanted and child.state in (State.STOPPED, State.FAILED):
            break
        await child.wait_news()
    if child.state is not State.READY:
        raise UnavailableError(
            f"{child.name} is not ready, but {child.state.value} ({child.last_exit})"
        )


def _group_of(process_id: int) -> int:
    try:
        return os.getpgid(process_id)
    except ProcessLookupError:
        return 0
