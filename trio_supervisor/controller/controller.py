"""Runs an application: every child in a nursery, and all of them ended in order."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import tempfile
import uuid
from collections import deque
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
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
    log_event,
)
from trio_supervisor.controller.launch import (
    SUPERVISOR_PLAN,
    Surroundings,
    fork_plan,
    make_launcher,
    make_supervisor_launcher,
    plan_of,
    sources_of,
)
from trio_supervisor.controller.link import SupervisorLink, record_of
from trio_supervisor.controller.names import choose
from trio_supervisor.errors import (
    PlatformError,
    RestartLimitError,
    UnavailableError,
    UnknownOperationError,
)
from trio_supervisor.link.listener import check_socket_path, open_listener
from trio_supervisor.link.peer import Answer, Fields, IncomingCall
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.process.boot import check_not_importing
from trio_supervisor.process.child import Process
from trio_supervisor.process.environment import (
    MARKER_VARIABLE,
    SOCKET_VARIABLE,
    stranger_environment,
)
from trio_supervisor.process.fork_server_start import EarlyServer
from trio_supervisor.process.forking import Forker, open_forker
from trio_supervisor.process.guard import Guard, open_guard
from trio_supervisor.process.kernel import be_subreaper
from trio_supervisor.process.logs import TEXT
from trio_supervisor.process.notify import (
    Notification,
    NotifySocket,
    open_notify_socket,
)
from trio_supervisor.process.orphans import Orphans
from trio_supervisor.process.sources import (
    Pickled,
    Reference,
    absolute_target,
    split_target,
)
from trio_supervisor.process.stopping import Patience
from trio_supervisor.spec import AnyService, Application
from trio_supervisor.wire.codec import parse_operation
from trio_supervisor.wire.messages import (
    Restart,
    Shutdown,
    Start,
    Stop,
    WorkerRecord,
)

DEFAULT_SOCKET: Final = "supervisor.ipc"
# Twice this long a zombie that is nobody's may wait [s].
_REAP_INTERVAL: Final = 1.0
# Beside one for each worker: its pidfd here, its connection in the supervisor.
_DESCRIPTORS: Final = 64
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
        on_event: OnEvent,
    ) -> None:
        self.application = application
        self.socket_path = socket_path
        self._guard = guard
        self._on_event = on_event
        self._patience = Patience()
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
        self._orphans = Orphans()
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
        return Child(plan, spawn, self, self._rng, self._patience)

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
        running = (State.STARTING, State.READY, State.UNHEALTHY)
        since = [c.incarnation + (c.state not in running) for c in chosen]
        for child in chosen:
            child.request_start()
        for child, incarnation in zip(chosen, since, strict=True):
            await _until_ready(child, incarnation)

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
            self._guard.watch(process.pid, child.plan.stop)
            # What it said before we knew its number.
            early = [n for n in self._early if n.process_id == process.pid]
            for notification in early:
                self._early.remove(notification)
                child.notified(notification)
        else:
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
        while True:
            notification = await notify.receive()
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
        if self._shutdown.is_set():
            raise UnavailableError("everything is being stopped")
        before = [(child, child.incarnation) for child in chosen]
        for child in chosen:
            child.request_restart(reason)
        for child, incarnation in before:
            await _until_ready(child, incarnation + 1)

    def _choose(self, names: Iterable[str] | None) -> list[Child]:
        if names is None:
            return list(self.children.values())
        services = {group.service.name: group.children for group in self._groups}
        return choose(names, self.children, services)


async def _until_ready(child: Child, since: int) -> None:
    ends = (State.READY, State.STOPPED, State.FAILED)
    state = await child.wait_state(*ends, since=since)
    if state is not State.READY:
        raise UnavailableError(
            f"{child.name} is not ready, but {state.value} ({child.last_exit})"
        )


def _group_of(process_id: int) -> int:
    try:
        return os.getpgid(process_id)
    except ProcessLookupError:
        return 0


@asynccontextmanager
async def open_controller(
    application: Application,
    *,
    socket_path: str | None = None,
    source: str | None = None,
    on_event: OnEvent = log_event,
    log_format: str = TEXT,
    early: EarlyServer | None = None,
) -> AsyncIterator[Controller]:
    """Run *application* for the length of the block.

    The block is entered at once; `Controller.wait_ready` waits for the workers. Leaving
    or cancelling it stops everything in reverse order of start, shielded, which takes
    at most each service's ``stop_timeout`` in turn; nothing is left after. Signals are
    not touched, so it works in any thread and in guest mode.

    Args:
        socket_path: Where the supervisor listens; else what ``TRIO_SUPERVISOR_SOCKET``
            says, else ``supervisor.ipc`` in the current directory.
        source: The target, as ``service.py:application``, that *application* comes
            from. Without it its functions and monitors are pickled for the children,
            and so have to be importable.
        on_event: Called with everything that happens; the default logs it.
        log_format: Of the supervisor process, ``"text"`` or ``"json"``.
        early: A fork server for *source* that was started already.

    Raises:
        SpecError: something cannot be pickled.
        SocketPathError: the socket cannot be made there.
        AlreadyServingError: somebody serves there.
        RestartLimitError: a worker ended too often, and everything was stopped.
        PlatformError: too few file descriptors are allowed for so many workers; or exit
            statuses of children are lost in this process; or this is a
            child that imports a main module without ``if __name__ == "__main__"``.
    """
    path = _absolute(socket_path or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET)
    check_not_importing()
    check_socket_path(path)
    _check_platform(application)
    reference = None
    title = application.name
    if source is not None:
        reference = Reference(absolute_target(source), _import_path())
        title = os.path.basename(split_target(source)[0])
    setup = _Setup(
        application=application,
        path=path,
        sources=sources_of(application, reference),
        on_event=on_event,
        log_format=log_format,
        title=title,
        early=early,
    )
    try:
        async with trio.open_nursery() as nursery:
            controller = await nursery.start(_own, setup, nursery.cancel_scope)
            try:
                yield controller
            finally:
                controller.shutdown("the block was left")
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        # The nursery is ours: nobody outside should have to know of it.
        error = group.exceptions[0]
    else:
        return
    raise error


@frozen(kw_only=True)
class _Setup:
    """What `open_controller` was told, and made of it."""

    application: Application
    path: str
    sources: Mapping[str, Reference | Pickled]
    on_event: OnEvent
    log_format: str
    title: str
    early: EarlyServer | None


async def _own(
    setup: _Setup,
    block: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[Controller],
) -> None:
    """Own everything that a controller has, from before the first child to the last.

    Shielded: what cancels the block asks for a shutdown, and that is waited for with
    all that it needs. When it is done, *block* is cancelled.
    """
    marker = setup.early.marker if setup.early else str(uuid.uuid4())
    with trio.CancelScope(shield=True):
        async with AsyncExitStack() as stack:
            listener = stack.enter_context(open_listener(setup.path))
            directory = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="trio_supervisor-")
            )
            notify = await stack.enter_async_context(open_notify_socket(directory))
            surroundings = Surroundings(
                socket_path=setup.path,
                listener=listener,
                notify_path=notify.path,
                lifeline=stack.enter_context(_open_lifeline()),
                marker=marker,
                log_format=setup.log_format,
                title=setup.title,
            )
            guard = await stack.enter_async_context(
                open_guard(
                    f"{MARKER_VARIABLE}={marker}",
                    directory,
                    stranger_environment(os.environ),
                )
            )
            controller = Controller(
                setup.application,
                setup.path,
                setup.sources,
                surroundings,
                guard,
                await _open_forker(stack, setup, surroundings),
                setup.on_event,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(controller._route_notifications, notify)
                nursery.start_soon(controller._reap)
                task_status.started(controller)
                await controller._run()
                nursery.cancel_scope.cancel()
    controller._raise_failure()
    block.cancel()


async def _open_forker(
    stack: AsyncExitStack, setup: _Setup, surroundings: Surroundings
) -> Forker | None:
    """Return what forks children; None: they are started by exec."""
    plan = fork_plan(setup.application, setup.sources, surroundings)
    early = setup.early.started if setup.early is not None else None
    if plan is None or not stack.enter_context(be_subreaper()):
        if early is not None:
            early.control.close()  # and so it ends
        return None
    return await stack.enter_async_context(open_forker(plan, early))


@contextmanager
def _open_lifeline() -> Iterator[int]:
    """Yield a descriptor that reads end-of-file once this process is gone."""
    read, write = os.pipe()
    try:
        yield read
    finally:
        os.close(read)
        os.close(write)


def _check_platform(application: Application) -> None:
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        raise PlatformError(
            "SIGCHLD is ignored in this process, so the kernel throws away how a child "
            "ended; call signal.signal(signal.SIGCHLD, signal.SIG_DFL) first"
        )
    workers = sum(service.count for service in application.services)
    needed = _DESCRIPTORS + workers
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if needed > limit:
        raise PlatformError(
            f"{workers} workers need {needed} file descriptors in the controller and "
            f"in the supervisor, and the limit is {limit}; raise it first, as with "
            f"`ulimit -n {2 * needed}`, or LimitNOFILE= in a systemd unit"
        )


def _absolute(path: str) -> str:
    return os.path.abspath(path)


def _import_path() -> tuple[str, ...]:
    return tuple(os.path.abspath(entry) for entry in sys.path)
