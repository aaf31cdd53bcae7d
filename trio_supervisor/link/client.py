"""The API of a client: what the command line does, for programs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field
from trio.lowlevel import enable_ki_protection

from trio_supervisor.errors import CallFailedError, NoSupervisorError
from trio_supervisor.link.connect import connect_unix
from trio_supervisor.link.foreign_server import PROBE, conversation, is_foreign
from trio_supervisor.link.peer import OnProgress, Peer, open_peer
from trio_supervisor.tasks import interrupt_safe
from trio_supervisor.wire.codec import parse_result, unparse_operation
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.messages import (
    AbortReload,
    Events,
    Forward,
    Health,
    HealthReport,
    Logs,
    Operation,
    Ping,
    Reload,
    ReloadReport,
    Restart,
    Scale,
    Shutdown,
    Start,
    Status,
    StatusReport,
    Stop,
    Workers,
)
from trio_supervisor.wire.reports import ThreadReport
from trio_supervisor.wire.session import Session


@define(eq=False)
class Client:
    """A connection to a supervisor; made by `open_client`.

    No method has a timeout: put `trio.fail_after` around it. All raise

    - `CallFailedError`: the supervisor, or a worker, answered that it failed;
    - `ForeignServerError`: the server is not ours, and cannot do what was asked;
    - `ConnectionLostError`: the connection ended first, the outcome is unknown.
    """

    _peer: Peer
    _is_foreign: bool | None = field(default=None, init=False)

    @enable_ki_protection
    async def call(
        self, operation: Operation, on_progress: OnProgress | None = None
    ) -> Object:
        """Make any call of the protocol; return the fields of its last answer.

        At a server that is not ours, as that of Ruby's async-container-supervisor, the
        call is made that does the same there.

        Raises:
            ForeignServerError: there is none.
        """
        do, arguments = unparse_operation(operation)
        if isinstance(operation, Status) or not await self.is_foreign():
            return await self._peer.call(do, arguments, on_progress)
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

    async def is_foreign(self) -> bool:
        """Return whether the server is not trio_supervisor's; asked once."""
        if self._is_foreign is None:
            error: CallFailedError | None = None
            try:
                await self._peer.call(*PROBE)
            except CallFailedError as exc:
                error = exc
            self._is_foreign = is_foreign(error)
        return self._is_foreign

    async def ping(self) -> None:
        """Return when the supervisor answered."""
        await self.call(Ping())

    async def status(self, on_monitor: OnProgress | None = None) -> StatusReport:
        """Return what supervisor and controller know of all workers.

        Args:
            on_monitor: Called with ``{monitor name: its status}`` for each monitor.
        """
        return parse_result(await self.call(Status(), on_monitor), StatusReport)

    async def workers(self) -> StatusReport:
        """Return the same without the monitors and connections."""
        return parse_result(await self.call(Workers()), StatusReport)

    async def restart(
        self,
        names: Sequence[str] | None = None,
        *,
        rolling: bool = False,
        max_unavailable: int = 1,
    ) -> None:
        """Restart *names* (workers or services), or all; return when they are ready.

        A worker may be named by its connection id or its process id, too.

        Args:
            rolling: A few at a time, each batch when the one before is ready.
            max_unavailable: With *rolling*: so many workers of a service at once.
        """
        await self.call(
            Restart(
                names=None if names is None else tuple(names),
                rolling=rolling,
                max_unavailable=max_unavailable,
            )
        )

    async def reload(
        self, *, changed_only: bool = False, dry_run: bool = False
    ) -> ReloadReport:
        """Have a new generation take over; return what became of each service.

        The supervisor is replaced, too, a moment after it has answered: connect anew.
        """
        operation = Reload(changed_only=changed_only, dry_run=dry_run)
        return parse_result(await self.call(operation), ReloadReport)

    async def abort_reload(self) -> None:
        """Give up the reload that is under way; return when all is as it was."""
        await self.call(AbortReload())

    async def scale(self, counts: Mapping[str, int]) -> None:
        """Give services another number of workers; return when it is so."""
        await self.call(Scale(counts=dict(counts)))

    async def health(self, kind: str) -> HealthReport:
        """Return how the application is: startup, readiness or liveness."""
        return parse_result(await self.call(Health(kind=kind)), HealthReport)

    async def events(self, on_answer: OnProgress, *, follow: bool = False) -> None:
        """Call *on_answer* with a ``snapshot``, then ``entries``, and ``missed``.

        With *follow* it goes on until it is cancelled.
        """
        await self.call(Events(follow=follow), on_answer)

    async def logs(
        self,
        on_answer: OnProgress,
        names: Sequence[str] | None = None,
        *,
        tail: int = 100,
        follow: bool = False,
    ) -> None:
        """Call *on_answer* with ``entries`` of what workers printed, and ``missed``.

        With *follow* it goes on until it is cancelled.
        """
        chosen = None if names is None else tuple(names)
        await self.call(Logs(names=chosen, tail=tail, follow=follow), on_answer)

    async def stop(self, names: Sequence[str]) -> tuple[str, ...]:
        """Stop *names* with what depends on them, and leave them stopped.

        Returns the names of all that were stopped, when nothing of them is left.
        """
        answer = await self.call(Stop(names=tuple(names)))
        return tuple(answer.get("stopped", ()))

    async def start(self, names: Sequence[str]) -> None:
        """Start those of *names* that do not run; return when they are ready."""
        await self.call(Start(names=tuple(names)))

    async def shutdown(self, *, wait: bool = True) -> None:
        """Have the controller stop everything, and itself.

        Args:
            wait: Whether to return when all workers have stopped, or when that begins.
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
            timeout: After it the supervisor answers DeadlineExceeded [s].
            on_progress: Called with the fields of each intermediate answer; without
                it, none is asked for.
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
    """Connect to the supervisor whose socket is at *path*, for the length of the block.

    Raises:
        NoSupervisorError: nobody accepts connections there.
    """
    try:
        stream: trio.abc.Stream = await connect_unix(path)
    except OSError as exc:
        raise NoSupervisorError(f"no supervisor at {path}: {exc}") from exc
    async with open_peer(stream, Session(is_connecting=True)) as peer:
        yield Client(peer)
