"""Answer one connection: that of a client, or of a worker once it has registered."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any, Final

import trio
from attrs import define, field

from trio_supervisor.errors import (
    BadRequestError,
    LimitExceededError,
    NotPermittedError,
)
from trio_supervisor.link.answers import answers, find_answer
from trio_supervisor.link.credentials import Credentials
from trio_supervisor.link.peer import Answer, Fields, IncomingCall, Peer
from trio_supervisor.process.cleanup.ancestry import Ancestry
from trio_supervisor.supervisor.call_spans import CallSpans
from trio_supervisor.supervisor.call_stats import CallStats, ConnectionStats
from trio_supervisor.supervisor.client_calls import ClientCalls
from trio_supervisor.supervisor.fair_share import Account
from trio_supervisor.supervisor.roles import (
    Gatekeeper,
    Role,
    is_free,
    is_own_status,
)
from trio_supervisor.supervisor.worker_connection import WorkerConnection
from trio_supervisor.supervisor.worker_handle import WorkerHandle
from trio_supervisor.wire.brief import brief
from trio_supervisor.wire.codec import parse_operation, to_fields
from trio_supervisor.wire.json_line import encode_object
from trio_supervisor.wire.json_tree import Object, has_more_containers
from trio_supervisor.wire.limits import MAX_NAME, MAX_STATE, MAX_STATE_CONTAINERS
from trio_supervisor.wire.messages import Register, RegisterReport
from trio_supervisor.wire.protocol import OPERATIONS

# The controller reports a process within milliseconds of its start [s].
_KNOWN_WITHIN: Final = 1.0


@define(eq=False, kw_only=True)
class ClientConnection:
    """One connection to the socket of the supervisor."""

    _calls: ClientCalls
    _gatekeeper: Gatekeeper
    _credentials: Credentials
    _origin: Ancestry | None
    _account: Account
    _stats: CallStats
    _counted_as: ConnectionStats
    _spans: CallSpans
    _is_operator: bool = field(default=False, init=False)
    _has_waited: bool = field(default=False, init=False)
    """Whether the controller had time to report its worker."""
    _worker: WorkerConnection | None = field(default=None, init=False)
    _handle: WorkerHandle | None = field(default=None, init=False)

    def dispatch(self, call: IncomingCall) -> Answer:
        """Answer *call*, or return the coroutine that does; count it.

        Raises:
            NotPermittedError: ``may`` of the worker's service does not list the call.
            LimitExceededError: the process has too many calls in progress.
        """
        began = time.perf_counter()
        try:
            answer = self._dispatch(call)
        except Exception:
            self._stats.answered(call, began, "failed")
            raise
        return self._stats.dispatch(answer, call, began)

    def _dispatch(self, call: IncomingCall) -> Answer:
        return self._spans.answer(call, self._credentials.process_id, self._permitted)

    def _permitted(self, call: IncomingCall) -> Answer:
        if not is_free(call) and (role := self._role()) is not None:
            if role.record is None and not self._has_waited:
                return self._counted(self._answer_once_known(call), call)
            answer = self._answer_worker(call, role)
        else:
            answer = self._answer(call)
        return self._counted(answer, call) if isinstance(answer, Coroutine) else answer

    def _counted(
        self, answer: Coroutine[Any, Any, Fields], call: IncomingCall
    ) -> Answer:
        type_ = OPERATIONS.get(call.do)
        is_stream = type_ is not None and type_.spec.is_stream
        return self._account.counted(answer, is_stream=is_stream)

    async def _answer_once_known(self, call: IncomingCall) -> Fields:
        """Answer a worker that the controller may not have reported yet."""
        with trio.move_on_after(_KNOWN_WITHIN):
            while (role := self._role()) is not None and role.record is None:
                await self._calls.registry.wait_changed()
        self._has_waited = True
        role = self._role()
        found = self._answer(call) if role is None else self._answer_worker(call, role)
        return await found if isinstance(found, Coroutine) else found

    def _answer_worker(self, call: IncomingCall, role: Role) -> Answer:
        if is_own_status(call, role):
            return self._calls.own_status(role)
        self._gatekeeper.check(call, role)
        return self._answer(call)

    def _role(self) -> Role | None:
        """Return the role of this connection; None: an operator's, without limits."""
        if self._is_operator:
            return None
        registered = None if self._worker is None else self._worker.process_id
        role = self._gatekeeper.role_of(self._origin, registered)
        self._is_operator = role is None
        return role

    def _answer(self, call: IncomingCall) -> Answer:
        arguments = call.arguments
        if call.do == "register" and arguments.get("state") is None:
            arguments = {**arguments, "state": {}}  # as Ruby's workers do by default
        operation = parse_operation(call.do, arguments)
        if (method := find_answer(self, operation)) is not None:
            return method(operation, call)
        return self._calls.answer(operation, call)

    @answers(Register)
    def register(self, operation: Register, call: IncomingCall) -> Fields:
        """Register the worker, or renew its state.

        Raises:
            BadRequestError, NotPermittedError: the process id is invalid, or another's.
            LimitExceededError: the state, or the number of workers, is too large.
        """
        state, process_id = self._with_process_id(operation.state)
        size = _checked_size(state)
        self._is_operator = False  # from now on it is a worker
        if self._worker is None:
            self._worker = self._add(call.peer, process_id, state, size)
            self._counted_as.is_worker()
        else:
            # The key in the registry contains the name, which may have changed.
            self._calls.registry.remove(self._worker)
            self._worker.renew(state, size)
            self._calls.registry.add(self._worker)
        return to_fields(RegisterReport(connection_id=self._worker.connection_id))

    def _with_process_id(self, state: Object) -> tuple[Object, int]:
        """Return *state* with the process id, which is checked, and that."""
        known = self._credentials.process_id
        if "process_id" not in state and known is not None:
            state = {**state, "process_id": known}
        process_id = state.get("process_id")
        if type(process_id) is not int:
            problem = f"expected a process id, got {brief(process_id)}"
            raise BadRequestError(f"state.process_id: {problem}")
        if known is not None and known != process_id:
            raise NotPermittedError(
                f"process {known} may not register as process {process_id}"
            )
        return state, process_id

    def _add(
        self, peer: Peer, process_id: int, state: Object, size: int
    ) -> WorkerConnection:
        registry = self._calls.registry
        registry.check_room(size)
        worker = WorkerConnection(peer, process_id, state, size)
        restart = self._calls.controller.restart_worker
        self._handle = WorkerHandle(worker, registry, restart, time.monotonic)
        registry.add(worker)
        self._calls.monitoring.register(self._handle)
        return worker

    def leave(self) -> None:
        """Remove the worker: the connection has ended."""
        if self._worker is not None and self._handle is not None:
            self._calls.registry.remove(self._worker)
            self._calls.monitoring.remove(self._handle)


def _checked_size(state: Object) -> int:
    """Return the size of *state* as JSON [bytes].

    Raises:
        LimitExceededError: it, or the name in it, is too long.
    """
    name = state.get("name")
    if isinstance(name, str) and len(name) > MAX_NAME:
        raise LimitExceededError(
            f"state.name has {len(name)} characters; at most {MAX_NAME} are accepted"
        )
    line = encode_object(state)
    if (size := len(line)) > MAX_STATE:
        raise LimitExceededError(
            f"state has {size} bytes as JSON; at most {MAX_STATE} are accepted"
        )
    # The garbage collector visits each of them while the worker is connected.
    if has_more_containers(line, MAX_STATE_CONTAINERS):
        raise LimitExceededError(
            f"state has more than {MAX_STATE_CONTAINERS} arrays and objects"
        )
    return size
