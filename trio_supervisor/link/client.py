"""Connect to a supervisor from a program, and make its calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio
from attrs import define, field
from trio.lowlevel import enable_ki_protection

from trio_supervisor._construction import NoPublicConstructor
from trio_supervisor.errors import CallFailedError, NoSupervisorError, SupervisorError
from trio_supervisor.link.active_span import active_traceparent
from trio_supervisor.link.connect import connect_unix
from trio_supervisor.link.entries import Entries, EntryQueue
from trio_supervisor.link.foreign_server import PROBE, conversation, is_foreign
from trio_supervisor.link.peer import OnProgress, Peer, open_peer
from trio_supervisor.tasks import combined, interrupt_safe, open_nursery, single
from trio_supervisor.wire.codec import parse_result, unparse_operation
from trio_supervisor.wire.controller_messages import (
    AbortReload,
    Events,
    Health,
    HealthReport,
    Logs,
    MetricsReport,
    ReadMetrics,
    Reload,
    ReloadReport,
    Restart,
    Scale,
    Shutdown,
    Start,
    Stop,
)
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.messages import Forward, Ping, Status, StatusReport, Workers
from trio_supervisor.wire.operation import Operation
from trio_supervisor.wire.reports import ThreadReport
from trio_supervisor.wire.session import Session
from trio_supervisor.wire.workers import WorkerStatus


@define(eq=False)
class Client(metaclass=NoPublicConstructor):
    """A connection to a supervisor; made by `open_client`.

    Its methods are named as those of `Controller`. None has a timeout: put
    `trio.fail_after` around it. A method that is cancelled stops waiting;
    what it asked for may go on. All methods raise

    - `CallFailedError`: the supervisor or a worker answered that the call failed;
    - `ForeignServerError`: the server is not trio_supervisor's and cannot do this;
    - `ConnectionLostError`: the connection ended first; the outcome is unknown.

    Example::

        async with open_client("supervisor.ipc") as client:
            await client.restart("web", rolling=True)
            for worker in await client.workers():
                print(worker.name, worker.state)
    """

    _peer: Peer
    _is_foreign: bool | None = field(default=None, init=False)

    @enable_ki_protection
    async def call(
        self, operation: Operation, on_progress: OnProgress | None = None
    ) -> Object:
        """Make any call of the protocol; return the fields of its last answer.

        At a foreign server, such as that of Ruby's async-container-supervisor, the
        equivalent call is made. If OpenTelemetry has an active span, the call belongs
        to its trace.

        Args:
            on_progress: Called with the fields of each intermediate answer.

        Raises:
            ForeignServerError: the server has no equivalent.
        """
        do, arguments = unparse_operation(operation)
        if isinstance(operation, Status) or not await self.is_foreign():
            return await self._call(do, arguments, on_progress)
        steps = conversation(do, arguments)
        answer: Object | None = None
        try:
            while True:
                step, fields = next(steps) if answer is None else steps.send(answer)
                progress = on_progress if step == do else None
                answer = await self._peer.call(step, fields, progress)
        except StopIteration as end:
            final: Object = end.value
            return final

    async def _call(
        self, do: str, arguments: Object, on_progress: OnProgress | None
    ) -> Object:
        """Call the supervisor, as part of the caller's trace if it has one."""
        traceparent = active_traceparent()
        peer = self._peer
        return await peer.call(do, arguments, on_progress, traceparent=traceparent)

    async def is_foreign(self) -> bool:
        """Return whether the server is another program's; asked once a connection."""
        if self._is_foreign is None:
            error: CallFailedError | None = None
            try:
                await self._peer.call(*PROBE)
            except CallFailedError as exc:
                error = exc
            self._is_foreign = is_foreign(error)
        return self._is_foreign

    async def ping(self) -> None:
        """Return once the supervisor has answered."""
        await self.call(Ping())

    async def status(self, on_monitor: OnProgress | None = None) -> StatusReport:
        """Return the state of all workers, of the controller and of the supervisor.

        Args:
            on_monitor: Called with ``{monitor name: its status}`` for each monitor.
        """
        return parse_result(await self.call(Status(), on_monitor), StatusReport)

    async def workers(self) -> tuple[WorkerStatus, ...]:
        """Return the state of each worker, in the order of declaration."""
        return parse_result(await self.call(Workers()), StatusReport).workers

    async def wait_ready(self) -> None:
        """Wait until all workers are ready and connected.

        Raises:
            CallFailedError: a worker failed for good (``Unavailable``).
        """
        await self.call(Workers(wait_ready=True))

    async def restart(
        self,
        *names: str,
        reason: str = "",
        rolling: bool = False,
        max_unavailable: int = 1,
    ) -> None:
        """Replace workers gracefully; return once the new ones are ready.

        Args:
            names: Workers (``web.0``) or services (``web``); none: all. A worker may
                be named by its connection id or its process id, too.
            reason: Shown in the log and in the status of the workers.
            rolling: Replace a few at a time, each batch once the one before is ready.
            max_unavailable: With *rolling*: maximum workers per service restarted at
                once.
        """
        await self.call(
            Restart(
                names=names or None,
                reason=reason,
                rolling=rolling,
                max_unavailable=max_unavailable,
            )
        )

    async def reload(
        self,
        *,
        changed_only: bool = False,
        dry_run: bool = False,
        canary: int | None = None,
        canary_for: float | None = None,
    ) -> ReloadReport:
        """Import the application again and replace its workers; return the outcome.

        The supervisor is replaced as well, right after it has answered: open a new
        connection for further calls.

        Args:
            changed_only: Keep workers whose declaration and code have not changed.
            dry_run: Only return what would be done.
            canary: Try at most this many new workers of each service first. If they do
                worse than the old ones, the call fails after the rollback.
            canary_for: How long they are compared [s]. None: 60.
        """
        operation = Reload(
            changed_only=changed_only,
            dry_run=dry_run,
            canary=canary,
            canary_for=canary_for,
        )
        return parse_result(await self.call(operation), ReloadReport)

    async def abort_reload(self) -> None:
        """Abort the running reload; return once it has been rolled back."""
        await self.call(AbortReload())

    async def scale(self, counts: Mapping[str, int]) -> None:
        """Change the number of workers of services; return once that is done.

        Args:
            counts: Number of workers by the name of the service.
        """
        await self.call(Scale(counts=dict(counts)))

    async def health(self, kind: str) -> HealthReport:
        """Return the health of the application.

        Args:
            kind: ``"startup"``, ``"readiness"`` or ``"liveness"``, as Kubernetes asks.
        """
        return parse_result(await self.call(Health(kind=kind)), HealthReport)

    async def metrics(
        self, *, per_worker: bool = False, openmetrics: bool = False
    ) -> str:
        """Return the metrics of services, workers and controller as text.

        Args:
            per_worker: Metrics that services declare are those of each worker's present
                process, instead of totals of the service.
            openmetrics: In the format OpenMetrics, instead of Prometheus' own.
        """
        call = ReadMetrics(per_worker=per_worker, openmetrics=openmetrics)
        return parse_result(await self.call(call), MetricsReport).data

    def events(self, *, follow: bool = False) -> AbstractAsyncContextManager[Entries]:
        """Iterate over events: those that are kept, oldest first, then new ones.

        Example::

            async with client.events(follow=True) as events:
                async for event in events:
                    print(event["message"])

        Args:
            follow: Go on with new events until the block is left.
        """
        return self._entries(Events(follow=follow))

    def logs(
        self, *names: str, tail: int = 100, follow: bool = False
    ) -> AbstractAsyncContextManager[Entries]:
        """Iterate over lines that workers have printed, as `events` does over events.

        Args:
            names: Workers or services; none: all.
            tail: Number of past lines, of all workers together.
            follow: Go on with new lines until the block is left.
        """
        return self._entries(Logs(names=names or None, tail=tail, follow=follow))

    @interrupt_safe
    @asynccontextmanager
    async def _entries(self, operation: Events | Logs) -> AsyncIterator[Entries]:
        """Run *operation* in a task while the block iterates over its answers."""
        queue = EntryQueue()

        async def run() -> None:
            try:
                await self.call(operation, queue.put)
            except SupervisorError as exc:
                queue.close(exc)
            else:
                queue.close()

        error: BaseException | None = None
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(run)
                try:
                    yield Entries(queue.receive)
                except BaseException as exc:  # the nursery would wrap it in a group
                    error = exc
                nursery.cancel_scope.cancel()
        except BaseException as exc:
            error = combined(error, single(exc))
        if error is not None:
            raise error

    async def stop(self, *names: str) -> tuple[str, ...]:
        """Stop workers and all services that depend on them; keep them stopped.

        Returns the names of all workers that were stopped, once none of their
        processes is left.

        Args:
            names: Workers (``web.0``) or services (``web``), at least one.
        """
        answer = await self.call(Stop(names=names))
        return tuple(answer.get("stopped", ()))

    async def start(self, *names: str) -> None:
        """Start workers that are stopped; return once they are ready.

        Args:
            names: Workers (``web.0``) or services (``web``), at least one.
        """
        await self.call(Start(names=names))

    async def shutdown(self, *, wait: bool = True) -> None:
        """Have the controller stop all workers and itself.

        Args:
            wait: Return once all workers have stopped, not when that begins.
        """
        await self.call(Shutdown(wait=wait))

    async def forward(
        self,
        name: str,
        do: str,
        *,
        timeout: float = 60.0,  # noqa: ASYNC109 (an argument of the call itself)
        on_progress: OnProgress | None = None,
        **arguments: Any,
    ) -> Object:
        """Have worker *name* run the operation *do*; return its last answer.

        Args:
            name: The worker's name, connection id or process id.
            do: An operation such as ``"memory_sample"``, or one of the service's own.
            timeout: Time after which the supervisor answers ``DeadlineExceeded`` [s].
            on_progress: Called with the fields of each intermediate answer; without
                it, none is asked for.
            arguments: Of the operation, such as ``duration=10``.
        """
        operation = {"do": do, **arguments}
        if on_progress is not None:
            operation["progress"] = True
        call = Forward(operation=operation, name=name, timeout=timeout)
        return await self.call(call, on_progress)

    async def thread_dump(self, name: str) -> ThreadReport:
        """Return the stacks of all threads of worker *name*."""
        return parse_result(await self.forward(name, "thread_dump"), ThreadReport)


@interrupt_safe
@asynccontextmanager
async def open_client(path: str) -> AsyncIterator[Client]:
    """Connect to the supervisor whose socket is at *path* for the length of the block.

    Raises:
        NoSupervisorError: no supervisor accepts connections at *path*.
    """
    try:
        stream: trio.abc.Stream = await connect_unix(path)
    except OSError as exc:
        raise NoSupervisorError(f"no supervisor at {path}: {exc}") from exc
    async with open_peer(stream, Session(is_connecting=True)) as peer:
        yield Client._create(peer)
