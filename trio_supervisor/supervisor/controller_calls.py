"""Answer the calls of the controller."""

from __future__ import annotations

import logging
from collections.abc import Callable

from attrs import define, field

from trio_supervisor.errors import UnknownOperationError
from trio_supervisor.link.answers import answers, find_answer
from trio_supervisor.link.peer import Answer, Fields, IncomingCall
from trio_supervisor.process.inspection.kernel_threads import state_of
from trio_supervisor.supervisor.forwarding import Forwarding
from trio_supervisor.supervisor.policy_calls import PolicyCalls
from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.supervisor.worker_updates import Updates
from trio_supervisor.wire.brief import brief
from trio_supervisor.wire.codec import parse_operation, to_fields
from trio_supervisor.wire.messages import Decide, DecideReport, Forward, Ping, Update

logger = logging.getLogger(__name__)


@define(eq=False)
class ControllerCalls:
    """Applies the updates of the controller, and forwards its calls to workers."""

    _registry: Registry
    _forwarding: Forwarding
    _stop_accepting: Callable[[], None]
    _policy: PolicyCalls | None = None
    _updates: Updates = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._updates = Updates(self._registry)

    def dispatch(self, call: IncomingCall) -> Answer:
        """Answer *call*, or return the coroutine that does."""
        operation = parse_operation(call.do, call.arguments)
        if (method := find_answer(self, operation)) is None:
            raise UnknownOperationError(
                f"the controller cannot call {brief(call.do)} here"
            )
        return method(operation, call)

    @answers(Ping)
    def ping(self, operation: Ping, call: IncomingCall) -> Fields:
        return {}

    @answers(Update)
    def update(self, operation: Update, call: IncomingCall) -> Fields:
        if operation.is_last:
            self._stop_accepting()
        answer = self._updates.take(operation)
        self._close_dead_connections()
        return answer

    @answers(Forward)
    def forward(self, operation: Forward, call: IncomingCall) -> Answer:
        return self._forwarding.forward(call, operation)

    @answers(Decide)
    async def decide(self, operation: Decide, call: IncomingCall) -> Fields:
        decision = ""
        if self._policy is not None:
            decision = await self._policy.decide(operation)
        return to_fields(DecideReport(decision=decision))

    def _close_dead_connections(self) -> None:
        """Close the connections of workers whose process has exited.

        A child of such a worker that has inherited its end of the connection keeps it
        open, and calls would wait for an answer that cannot arrive.
        """
        for worker in self._registry.take_former():
            if state_of(worker.process_id) in ("", "Z", "X"):
                name, pid = worker.own_name, worker.process_id
                logger.debug("%s (pid %d) exited; closing its connection", name, pid)
                worker.peer.close()
