"""Answer the calls of clients, and of workers as far as they may make them."""

from __future__ import annotations

import time
from typing import Any, Final

import trio
from attrs import define, evolve, field

from trio_supervisor.errors import BadRequestError, UnknownOperationError
from trio_supervisor.link.answers import answers, find_answer
from trio_supervisor.link.peer import Answer, Fields, IncomingCall
from trio_supervisor.supervisor.controller_link import ControllerLink
from trio_supervisor.supervisor.forwarding import Forwarding
from trio_supervisor.supervisor.monitoring import Monitoring
from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.supervisor.roles import Role
from trio_supervisor.supervisor.status_rows import StatusRows
from trio_supervisor.supervisor.worker_names import WorkerNames
from trio_supervisor.wire.brief import brief
from trio_supervisor.wire.codec import to_fields
from trio_supervisor.wire.controller_messages import Reload, Restart, Shutdown
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.messages import (
    Forward,
    Ping,
    Status,
    StatusReport,
    SupervisorStatus,
    Workers,
)
from trio_supervisor.wire.operation import Operation, Side

# The controller reports first of all. A client waits this long if it is stopped [s].
_INFORMED_WITHIN: Final = 2.0
# Ruby's clients name a signal. None of them is ever sent.
_RESTART_SIGNALS: Final = frozenset({None, "HUP", "INT", "TERM"})


@define(eq=False, kw_only=True)
class ClientCalls:
    """Answers the operations of the supervisor; passes on those of the controller."""

    registry: Registry
    names: WorkerNames
    controller: ControllerLink
    forwarding: Forwarding
    monitoring: Monitoring
    process_id: int
    incarnation: int
    _rows: StatusRows = field(init=False)
    _started_at: float = field(factory=trio.current_time, init=False)

    def __attrs_post_init__(self) -> None:
        self._rows = StatusRows(self.registry)

    def answer(self, operation: Operation, call: IncomingCall) -> Answer:
        """Answer *call*, or return the coroutine that does."""
        if (method := find_answer(self, operation)) is not None:
            return method(operation, call)
        spec = operation.spec
        if Side.CONTROLLER not in spec.answered_by or spec.called_by is not Side.CLIENT:
            raise UnknownOperationError(
                f"the supervisor does not answer {brief(spec.do)}"
            )
        operation = self._with_managed_names(operation)
        if spec.is_stream:
            return self.controller.relay(call, operation)
        return self.controller.call(operation)

    def _with_managed_names(self, operation: Operation) -> Operation:
        """Replace the words in *names* by the names that the controller knows."""
        words: tuple[str, ...] | None = getattr(operation, "names", None)
        if words is None:  # all workers, or an operation without names
            return operation
        attributes: Any = operation
        managed: Operation = evolve(attributes, names=self.names.all_to_managed(words))
        return managed

    @answers(Ping)
    def ping(self, operation: Ping, call: IncomingCall) -> Fields:
        return {}

    @answers(Status)
    def status(self, operation: Status, call: IncomingCall) -> Answer:
        if self.registry.is_informed:
            return self._full_status(call)
        return self._status_once_informed(call)

    @answers(Workers)
    def workers(self, operation: Workers, call: IncomingCall) -> Answer:
        if operation.wait_ready:
            return self._status_once_ready()
        if self.registry.is_informed:
            return self.status_fields(is_full=False)
        return self._status_once_informed(None)

    @answers(Forward)
    def forward(self, operation: Forward, call: IncomingCall) -> Answer:
        return self.forwarding.forward(call, operation)

    @answers(Restart)
    def restart(self, operation: Restart, call: IncomingCall) -> Answer:
        if operation.signal not in _RESTART_SIGNALS:
            raise BadRequestError(
                f"signal: expected HUP, INT or TERM, got {brief(operation.signal)}"
            )
        if operation.signal == "HUP":
            return self.controller.call(Reload())
        return self.controller.call(self._with_managed_names(operation))

    @answers(Shutdown)
    def shutdown(self, operation: Shutdown, call: IncomingCall) -> Answer:
        if operation.wait:  # an intermediate answer says that it has begun
            return self.controller.relay(call, operation)
        return self.controller.call(operation)

    async def own_status(self, role: Role) -> Object:
        """Return the part of the `StatusReport` that is about *role* itself."""
        await self._wait_informed()
        return role.own(self.status_fields(is_full=True))

    def status_fields(self, *, is_full: bool) -> Object:
        """Return the fields of the `StatusReport`."""
        report = StatusReport(
            supervisor=SupervisorStatus(
                process_id=self.process_id,
                incarnation=self.incarnation,
                uptime=round(trio.current_time() - self._started_at, 3),
            ),
            controller=self.controller.status(),
            workers=(),
        )
        return {
            **to_fields(report),
            "workers": self._rows.statuses(time.monotonic()),
            "connections": self._rows.connections() if is_full else [],
        }

    def _full_status(self, call: IncomingCall) -> Object:
        """Send the status of each monitor; return the fields of the `StatusReport`."""
        for name, status in self.monitoring.statuses().items():
            call.progress({name: status})
        return self.status_fields(is_full=True)

    async def _status_once_informed(self, full: IncomingCall | None) -> Object:
        """Return the status after the first report of the controller, or soon.

        Before that report, a supervisor that has just started would count the workers
        of the controller as unmanaged.
        """
        await self._wait_informed()
        return (
            self.status_fields(is_full=False)
            if full is None
            else self._full_status(full)
        )

    async def _status_once_ready(self) -> Object:
        await self.registry.wait_ready()
        return self.status_fields(is_full=False)

    async def _wait_informed(self) -> None:
        with trio.move_on_after(_INFORMED_WITHIN):
            await self.registry.wait_informed()
