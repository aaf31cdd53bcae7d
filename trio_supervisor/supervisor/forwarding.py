"""Forward calls to workers, and answer for a worker that cannot."""

from __future__ import annotations

from typing import Final

import trio
from attrs import define, field

from trio_supervisor.errors import (
    BadRequestError,
    CallFailedError,
    ConnectionLostError,
    DeadlineExceededError,
    NoSuchWorkerError,
    NotConnectedError,
)
from trio_supervisor.link.peer import IncomingCall
from trio_supervisor.policy.addressing import AmbiguousNameError
from trio_supervisor.supervisor.controller_link import ControllerLink
from trio_supervisor.supervisor.outside_diagnosis import OutsideDiagnosis
from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.supervisor.unresponsive import (
    ANSWER_WITHIN,
    CallWatch,
    WatchedCall,
    diagnose_blockage,
)
from trio_supervisor.supervisor.worker_connection import WorkerConnection
from trio_supervisor.supervisor.worker_names import WorkerNames
from trio_supervisor.wire.brief import brief
from trio_supervisor.wire.envelope import PlainFailure
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.messages import Forward
from trio_supervisor.wire.trace_context import FIELD as TRACE_FIELD

# The supervisor reads the end of a connection within one turn of its event loop [s].
_CLOSED_WITHIN: Final = 0.05
_RESERVED: Final = frozenset({"id", "finished", "failed", "error", TRACE_FIELD})


@define(eq=False)
class Forwarding:
    """Runs operations in workers on behalf of clients."""

    _registry: Registry
    _names: WorkerNames
    _controller: ControllerLink
    watch: CallWatch = field(factory=CallWatch, init=False)
    """Watches the calls of workers; its `run` is a task of the caller."""
    _outside: OutsideDiagnosis = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._outside = OutsideDiagnosis(self._registry, self._names, self._controller)

    async def forward(self, call: IncomingCall, forward: Forward) -> Object:
        """Have a worker run an operation; pass its answers on to *call*.

        Raises:
            BadRequestError: the operation, or its target, is invalid.
            NoSuchWorkerError, NotConnectedError, AmbiguousNameError: see
                `WorkerNames.find`.
            DeadlineExceededError: no answer arrived in time, or none can.
            ConnectionLostError: the worker exited before it answered.
        """
        do, arguments = _checked(forward)
        if do == "thread_dump":
            return await self._dump_threads(call, forward, arguments)
        try:
            worker = await self._find(call, forward)
        except NotConnectedError as exc:
            if do != "doctor":
                raise self._with_advice(exc, forward) from None
            name = forward.name or ""
            with trio.move_on_after(forward.timeout):
                if (found := await self._outside.examine(name, arguments)) is not None:
                    return found
            worker = self._names.find(forward.connection_id, forward.name)
        return await self._ask(call, forward, worker, do, arguments)

    def _with_advice(
        self, exc: NotConnectedError, forward: Forward
    ) -> NotConnectedError:
        """Return *exc* with advice if the worker has a process nevertheless."""
        record = self._names.record(forward.name or "")
        if record is None or record.process_id is None or not record.connects:
            return exc
        return NotConnectedError(
            f"{exc}; pid {record.process_id} runs, but its agent has not registered; "
            "thread-dump and doctor can inspect it from outside"
        )

    async def _find(self, call: IncomingCall, forward: Forward) -> WorkerConnection:
        """Return the connection that *forward* means."""
        try:
            return self._names.find(forward.connection_id, forward.name)
        except AmbiguousNameError:
            # A worker may have just hung up: wait until that is noticed.
            await trio.sleep(_CLOSED_WITHIN)
            return self._names.find(forward.connection_id, forward.name)
        except NoSuchWorkerError:
            # Ruby's clients name a connection, and no timeout. Our clients send an
            # empty connection id to find out which kind of server answers.
            if not forward.connection_id or "timeout" in call.arguments:
                raise
        raise PlainFailure("Connection not found", connection_id=forward.connection_id)

    async def _call_worker(
        self, call: IncomingCall, worker: WorkerConnection, do: str, arguments: Object
    ) -> Object:
        # Large answers are passed on unparsed: parsing them would block the event loop.
        takes_unparsed = not self._controller.is_at(call.peer)
        return await worker.peer.call(
            do, arguments, call.progress, takes_unparsed=takes_unparsed
        )

    async def _dump_threads(
        self, call: IncomingCall, forward: Forward, arguments: Object
    ) -> Object:
        """Return stacks, read from outside if no agent answers."""
        try:
            worker = await self._find(call, forward)
        except NotConnectedError as exc:
            record = self._names.record(forward.name or "")
            seen = await self._controller.inspect(record)
            if fault := seen.get("fault"):
                raise NotConnectedError(f"{exc}; {fault}") from None
            if not seen.get("way"):
                raise
            return {**seen, "threads": []}
        patience = min(forward.timeout / 2, ANSWER_WITHIN)
        with trio.move_on_after(patience):
            return await self._call_worker(call, worker, "thread_dump", arguments)
        seen = await self._controller.inspect(self._registry.record_of(worker))
        if seen.get("way"):
            return {**seen, "threads": []}
        raise _no_answer(forward, worker, "thread_dump", patience)

    async def _ask(
        self,
        call: IncomingCall,
        forward: Forward,
        worker: WorkerConnection,
        do: str,
        arguments: Object,
    ) -> Object:
        """Return the worker's answer; raise early if it certainly cannot answer."""
        record = self._registry.record_of(worker)
        watched = WatchedCall(
            worker.peer,
            lambda: self._controller.inspect(self._registry.record_of(worker)),
            trio.move_on_after(forward.timeout),
        )
        self.watch.begin(watched)
        try:
            with watched.waiting:
                return await self._call_worker(call, worker, do, arguments)
        except CallFailedError as exc:
            if do != "doctor" or exc.error_class != "Exhausted" or record is None:
                raise
            return await self._outside.examine_exhausted(record, exc.message)
        except ConnectionLostError as exc:
            passed = trio.current_time() - watched.since
            return await self._outside.explain_exit(exc, record, do, passed)
        finally:
            self.watch.end(watched)
        return await self._explain_silence(forward, worker, do, watched)

    async def _explain_silence(
        self,
        forward: Forward,
        worker: WorkerConnection,
        do: str,
        watched: WatchedCall,
    ) -> Object:
        """Return a diagnosis if one was requested; otherwise raise.

        Raises:
            DeadlineExceededError: with the reason, if there is a known one.
        """
        blockage, passed = watched.blockage, trio.current_time() - watched.since
        if blockage is not None and do == "doctor":
            heard = f"last message {_silent_for(worker):.1f} s ago"
            return diagnose_blockage(blockage, worker.process_id, passed, heard)
        reason = blockage.text if blockage is not None else ""
        if blockage is None:
            record = self._registry.record_of(worker)
            seen = await self._controller.inspect(record)
            reason = str(seen.get("fault", ""))
            if seen.get("way") == "kernel":
                reason = str(seen["data"])
        raise _no_answer(forward, worker, do, passed, reason)


def _checked(forward: Forward) -> tuple[str, Object]:
    """Return ``do`` and the arguments of the operation to forward."""
    arguments = dict(forward.operation)
    do = arguments.pop("do", None)
    if not isinstance(do, str):
        raise BadRequestError("operation.do: expected the name of an operation")
    if do == "cancel":
        raise BadRequestError(
            "operation: cancel cannot be forwarded; cancel the call of the forward "
            "itself, over the connection that made it"
        )
    if (forward.connection_id is None) == (forward.name is None):
        raise BadRequestError("expected either connection_id or name")
    if reserved := _RESERVED.intersection(arguments):
        names = ", ".join(sorted(reserved))
        raise BadRequestError(f"operation: reserved argument names: {names}")
    return do, arguments


def _silent_for(worker: WorkerConnection) -> float:
    return trio.current_time() - worker.peer.heard_at


def _no_answer(
    forward: Forward, worker: WorkerConnection, do: str, passed: float, reason: str = ""
) -> DeadlineExceededError:
    return DeadlineExceededError(
        f"{forward.name or forward.connection_id} (pid {worker.process_id}) did not "
        f"answer {brief(do)} within {round(passed, 1):g} s; last message "
        f"{_silent_for(worker):.1f} s ago{f'; {reason}' if reason else ''}"
    )
