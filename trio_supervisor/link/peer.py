"""Make and answer calls over one stream, in both directions and concurrently."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import trio
from attrs import define, field

from trio_supervisor.errors import (
    BadRequestError,
    CallFailedError,
    ConnectionLostError,
    LimitExceededError,
    LocalProtocolError,
    OperationFailedError,
    RemoteProtocolError,
    SupervisorError,
    UnknownOperationError,
)
from trio_supervisor.link.outbox import Outbox
from trio_supervisor.link.slices import Pace, Slices
from trio_supervisor.link.transport import Transport, transport_of
from trio_supervisor.tasks import ProtectedNursery, combined, open_nursery, single
from trio_supervisor.wire.brief import brief, cut
from trio_supervisor.wire.envelope import failure
from trio_supervisor.wire.json_line import encode_object
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.session import (
    AnswerReceived,
    CallReceived,
    CallRefused,
    Session,
    Unparsed,
)
from trio_supervisor.wire.trace_context import (
    CurrentTrace,
    TraceContext,
    continue_trace,
    current_traceparent,
)

logger = logging.getLogger(__name__)

# How long a peer that no longer reads may still send [s].
_FINAL_READ: Final = 1.0

Fields: TypeAlias = Mapping[str, object]
OnProgress: TypeAlias = Callable[[Object], None]


class Cancelled(SupervisorError):  # noqa: N818 (the name on the wire)
    """The caller has cancelled the call."""


@define(eq=False)
class IncomingCall:
    """A call of the peer that is being answered."""

    do: str
    arguments: Object
    peer: Peer
    _id: int
    trace: TraceContext | None = None
    """The trace that the caller's span belongs to; None: none."""

    def progress(self, fields: Fields) -> None:
        """Send an intermediate answer.

        Raises:
            ConnectionLostError: the connection has ended.
        """
        self.peer._outbox.send(self.peer._session.progress(self._id, fields))

    async def stream(self, fields: Fields) -> None:
        """Send an intermediate answer of a stream; wait until the peer has received it.

        Only one stream of a connection sends at a time, so that all streams together
        queue no more than a single one.

        Raises:
            ConnectionLostError: the connection has ended.
        """
        async with self.peer.streaming:
            self.progress(fields)
            await self.peer.wait_drained()


Answer: TypeAlias = Fields | Coroutine[Any, Any, Fields]
Dispatch: TypeAlias = Callable[[IncomingCall], Answer]
"""Answers a call: with fields immediately, or with a coroutine that is run in a task.

A `SupervisorError` is sent as the answer, by name. Any other exception is logged here,
and sent to the peer without details.
"""


def refuse_calls(call: IncomingCall) -> Answer:
    """Refuse a call: the dispatch of a side that accepts none."""
    raise UnknownOperationError(f"this side accepts no calls: {brief(call.do)}")


@define(eq=False)
class _Pending:
    """A call to the peer, and the task that waits for its answers."""

    task: trio.lowlevel.Task
    on_progress: OnProgress | None
    takes_unparsed: bool = False
    is_over: bool = False
    fields: Object | None = None
    error: Exception | None = None

    def wake(self) -> None:
        """Reschedule the task."""
        self.is_over = True
        trio.lowlevel.reschedule(self.task)


@define(eq=False)
class Peer:
    """One connection; made by `open_peer`.

    One task reads. Another task writes what the socket does not accept immediately, so
    that a cancelled call can never leave half a line on the wire. Lines that are queued
    while many calls are made or answered are sent together.
    """

    _transport: Transport
    _session: Session
    _dispatch: Dispatch
    _pace: Pace = field(factory=Slices)
    streaming: trio.StrictFIFOLock = field(factory=trio.StrictFIFOLock, init=False)
    """Held while a part of a stream is sent."""
    closed: trio.Event = field(factory=trio.Event, init=False)
    """Set when the connection has ended; no call succeeds after that."""
    error: Exception | None = field(default=None, init=False)
    """Why it has ended; None: one side closed it normally."""
    _pending: dict[int, _Pending] = field(factory=dict, init=False)
    _running: dict[int, trio.CancelScope] = field(factory=dict, init=False)
    _outbox: Outbox = field(init=False)
    _hung_up: trio.Event = field(factory=trio.Event, init=False)
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    heard_at: float = field(factory=trio.current_time, init=False)
    """When the last data of the peer arrived [s]."""
    has_called: trio.Event = field(factory=trio.Event, init=False)
    """Set by the peer's first call, or by the end of the connection."""

    def __attrs_post_init__(self) -> None:
        self._outbox = Outbox(
            self._transport,
            self._session.limits.queued,
            self._handle_overflow,
            self._handle_broken,
        )

    async def call(
        self,
        do: str,
        arguments: Fields,
        on_progress: OnProgress | None = None,
        *,
        takes_unparsed: bool = False,
        traceparent: str = "",
    ) -> Object:
        """Call *do* of the peer; return the fields of its last answer.

        There is no timeout: use `trio.fail_after`. A cancellation sends a ``cancel`` to
        the peer; later answers are dropped.

        Args:
            on_progress: Called with the fields of each intermediate answer.
            takes_unparsed: Whether the fields of an answer may be `Unparsed`. Otherwise
                an answer that is too large to be parsed here fails.
            traceparent: The trace that the call belongs to; empty: the current one.

        Raises:
            CallFailedError: the peer answered that the call failed.
            ConnectionLostError: the connection ended first. The peer may or may not
                have run the call.
            LocalProtocolError: *arguments* cannot be sent.
            UnavailableError: too many calls are in flight to this peer.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.closed.is_set():
            raise self._lost(do)
        traceparent = traceparent or current_traceparent()
        id_, line = self._session.call(do, arguments, traceparent)
        task = trio.lowlevel.current_task()
        pending = _Pending(task, on_progress, takes_unparsed)
        self._pending[id_] = pending
        try:
            self._outbox.send(line, is_alone=self._session.calls_in_flight == 1)

            def abort(_: object) -> trio.lowlevel.Abort:
                # From here on the task is scheduled: it must not be rescheduled again.
                del self._pending[id_]
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            self._pending.pop(id_, None)
            if not pending.is_over:
                self._give_up(id_)
        if pending.error is not None:
            raise pending.error
        if pending.fields is None:
            raise self._lost(do)
        return pending.fields

    def post(self, do: str, arguments: Fields) -> None:
        """Call *do* of the peer, and ignore its answer.

        The peer processes it before later calls and answers.

        Raises:
            ConnectionLostError: the connection has ended.
            LocalProtocolError, UnavailableError: as for `call`.
        """
        if self.closed.is_set():
            raise self._lost(do)
        id_, line = self._session.call(do, arguments)
        self._session.forget(id_)
        self._outbox.send(line)

    async def wait_drained(self) -> None:
        """Wait until the queue is sent, or the connection has ended.

        Call it between large messages, to stay below the limit of the queue. A
        cancellation has no effect on the queue.
        """
        await self._outbox.wait_drained()

    def close(self) -> None:
        """End the connection immediately; pending calls raise ConnectionLostError."""
        self._scope.cancel()

    def hang_up(self, error: RemoteProtocolError) -> None:
        """Tell the peer what it did wrong, then end the connection."""
        if self.error is None:
            self.error = error
            self._send_quietly(encode_object(failure(error)))
            self._hung_up.set()

    def _lost(self, do: str) -> ConnectionLostError:
        why = f": {self.error}" if self.error else ""
        return ConnectionLostError(f"connection lost during {do!r}{why}")

    def _give_up(self, id_: int) -> None:
        self._session.forget(id_)
        if not self.closed.is_set():
            cancel_id, line = self._session.call("cancel", {"call": id_})
            self._session.forget(cancel_id)  # its answer is not needed
            self._send_quietly(line)

    def _handle_overflow(self, queued: int) -> None:
        # The peer would not read a typed error either.
        problem = f"the peer is not reading: {queued} bytes are queued for it"
        self._end(LimitExceededError(problem))

    def _handle_broken(self, exc: Exception) -> None:
        """Note that the peer accepts no more data. Data from it can still be read."""
        # If it only stopped reading, pending calls must not wait forever.
        self._scope.deadline = trio.current_time() + _FINAL_READ
        if self.error is None:
            self.error = ConnectionLostError(f"the peer closed the connection: {exc}")

    def _end(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
        self._scope.cancel()

    async def _run(self) -> None:
        """Read and write until the connection ends, for any reason."""
        try:
            with self._scope:
                async with open_nursery() as nursery:
                    nursery.start_soon(self._outbox.run)
                    nursery.start_soon(self._read, nursery)
                    await self._hung_up.wait()
                    await self._drain()
                    nursery.cancel_scope.cancel()
        finally:
            self.closed.set()
            self._outbox.close()
            self.has_called.set()  # end tasks that wait for the first call
            pending, self._pending = self._pending, {}
            for call in pending.values():
                call.wake()

    async def _read(self, nursery: ProtectedNursery) -> None:
        try:
            while data := await self._transport.receive():
                self.heard_at = trio.current_time()
                await self._receive_data(data, nursery)
            self._session.receive_eof()
        except RemoteProtocolError as exc:
            self.hang_up(exc)
        except trio.BrokenResourceError as exc:
            self.error = self.error or ConnectionLostError(str(exc))
        except trio.ClosedResourceError:
            pass
        # After its end-of-file, the peer may still read, as `nc -N` does.
        self._hung_up.set()

    async def _receive_data(self, data: bytes, nursery: ProtectedNursery) -> None:
        pace = self._pace
        try:
            await pace.begin()
            self._outbox.is_gathering = True
            for event in self._session.receive_data(data):
                self._receive_event(event, nursery)
                if pace.is_over or self._has_much_queued:
                    await self._pause(pace)
        finally:
            pace.end()
            self._outbox.is_gathering = False
            self._outbox.flush()

    @property
    def _has_much_queued(self) -> bool:
        most = self._pace.most_queued
        return most is not None and self._outbox.queued > most

    async def _pause(self, pace: Pace) -> None:
        """Let other tasks run, and send the answers so far."""
        self._outbox.is_gathering = False
        self._outbox.flush()
        pace.end()
        if self._has_much_queued:
            await self.wait_drained()
        else:
            await trio.lowlevel.checkpoint()
        await pace.begin()
        self._outbox.is_gathering = True

    async def _drain(self) -> None:
        """Wait until the queue is sent, for up to 1 s."""
        with trio.move_on_after(1):
            await self.wait_drained()

    def _receive_event(
        self,
        event: CallReceived | AnswerReceived | CallRefused,
        nursery: ProtectedNursery,
    ) -> None:
        match event:
            case AnswerReceived(id, fields, is_last, error):
                if (pending := self._pending.get(id)) is None:
                    return
                if isinstance(fields, Unparsed) and not pending.takes_unparsed:
                    if not is_last:
                        return
                    problem = "the answer is too large to be parsed here"
                    error = CallFailedError("LimitExceeded", problem)
                if is_last:
                    del self._pending[id]
                    pending.fields = fields
                    pending.error = error
                    pending.wake()
                elif pending.on_progress is not None:
                    try:
                        pending.on_progress(fields)
                    except Exception as exc:  # raised in the task of the caller
                        del self._pending[id]
                        self._give_up(id)
                        pending.error = exc
                        pending.wake()
            case CallReceived(id, do, arguments, traceparent):
                self.has_called.set()
                trace = continue_trace(traceparent)
                if trace is None:
                    self._receive_call(id, do, arguments, nursery)
                else:
                    with trace.entered():
                        self._receive_call(id, do, arguments, nursery, trace)
            case CallRefused(reply):
                self.has_called.set()
                self._send_quietly(reply)

    def _receive_call(
        self,
        id_: int,
        do: str,
        arguments: Object,
        nursery: ProtectedNursery,
        trace: CurrentTrace | None = None,
    ) -> None:
        context = None if trace is None else trace.context
        call = IncomingCall(do, arguments, self, id_, context)
        try:
            answer = self._cancel(arguments) if do == "cancel" else self._dispatch(call)
        except Exception as exc:
            self._fail(id_, do, exc)
        else:
            if isinstance(answer, Coroutine):
                # Created here, so that a cancel that follows immediately finds it.
                scope = self._running[id_] = trio.CancelScope()
                nursery.start_soon(self._run_call, id_, do, answer, scope, trace)
                return
            self._answer(id_, do, answer)
        if trace is not None:
            trace.is_over = True

    async def _run_call(
        self,
        id_: int,
        do: str,
        answer: Coroutine[Any, Any, Fields],
        scope: trio.CancelScope,
        trace: CurrentTrace | None,
    ) -> None:
        fields: Fields = {}
        # Outside the scope: errors in a cleanup leave the scope as a group.
        try:
            with scope:
                fields = await answer
        except Exception as exc:
            self._fail(id_, do, exc)
        else:
            if scope.cancelled_caught:
                self._fail(id_, do, Cancelled("cancelled by the caller"))
            else:
                self._answer(id_, do, fields)
        finally:
            del self._running[id_]
            if trace is not None:
                trace.is_over = True

    def _cancel(self, arguments: Object) -> Fields:
        id_ = arguments.get("call")
        if type(id_) is not int:
            raise BadRequestError(f"call: expected the id of a call, got {brief(id_)}")
        if (scope := self._running.get(id_)) is not None:
            scope.cancel()
        return {}

    def _answer(self, id_: int, do: str, fields: Fields) -> None:
        try:
            line = self._session.answer(id_, fields)
        except LocalProtocolError as exc:
            self._fail(id_, do, LocalProtocolError(f"the answer to {brief(do)}: {exc}"))
        else:
            self._send_quietly(line, is_alone=len(self._running) <= 1)

    def _fail(self, id_: int, do: str, exc: Exception) -> None:
        if isinstance(exc, ExceptionGroup) and len(exc.exceptions) == 1:
            exc = exc.exceptions[0]
        if isinstance(exc, SupervisorError):
            error = exc
        else:
            logger.error("%s failed", brief(do), exc_info=exc)
            name = type(exc).__name__
            error = OperationFailedError(f"{brief(do)} failed ({name}); see the log")
        try:
            line = self._session.fail(id_, error)
        except LocalProtocolError:  # longer than a line
            logger.error("%s failed: %s", brief(do), cut(str(error)))
            text = f"{brief(do)} failed; its message is too long to send, see the log"
            line = self._session.fail(id_, OperationFailedError(text))
        self._send_quietly(line)

    def _send_quietly(self, line: bytes, *, is_alone: bool = False) -> None:
        try:
            self._outbox.send(line, is_alone=is_alone)
        except ConnectionLostError as exc:
            logger.debug("an answer was not sent: %s", exc)


@asynccontextmanager
async def open_peer(
    stream: trio.abc.Stream,
    session: Session,
    dispatch: Dispatch = refuse_calls,
    pace: Pace | None = None,
) -> AsyncIterator[Peer]:
    """Make and answer calls over *stream* within the block; close it at the end.

    The end of the connection does not end the block: wait for `Peer.closed`.

    Args:
        pace: Schedules the calls of the peer; None: in order, with a checkpoint after
            some milliseconds of work.
    """
    error: BaseException | None = None
    try:
        async with stream, open_nursery() as nursery:
            peer = Peer(transport_of(stream), session, dispatch, pace or Slices())
            nursery.start_soon(peer._run)
            try:
                yield peer
            except BaseException as exc:  # the nursery would put it in a group
                error = exc
            peer.close()
            nursery.cancel_scope.cancel()
    except BaseException as exc:
        error = combined(error, single(exc))
    if error is not None:
        raise error
