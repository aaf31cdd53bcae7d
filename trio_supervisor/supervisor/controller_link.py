"""Call the controller, which carries out what clients request."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import trio
from attrs import define, evolve, field

from trio_supervisor.errors import (
    CallFailedError,
    ConnectionLostError,
    SupervisorError,
    UnavailableError,
)
from trio_supervisor.link.peer import IncomingCall, Peer
from trio_supervisor.process.inspection.kernel_threads import state_of
from trio_supervisor.supervisor.relay import Relay
from trio_supervisor.wire.codec import unparse_operation
from trio_supervisor.wire.controller_messages import (
    Inspect,
    Logs,
    ReportDenial,
    ReportSpans,
    Restart,
)
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.messages import ControllerStatus
from trio_supervisor.wire.operation import Operation
from trio_supervisor.wire.workers import WorkerRecord

logger = logging.getLogger(__name__)

# The controller's own inspection takes at most half of that [s].
_INSPECT_WITHIN: Final = 1.5
# What is known of the workers is not checked if it is younger than this [s].
_FRESH_FOR: Final = 1.0
# The controller confirms it every 5 s; if it is older, the controller is late [s].
_CONFIRMED_WITHIN: Final = 12.0


@define(eq=False)
class ControllerLink:
    """The supervisor's connection to the controller."""

    process_id: int
    """Of the controller."""
    version: str
    _peer: Peer | None = field(default=None, init=False)

    @contextmanager
    def connected(self, peer: Peer) -> Iterator[None]:
        """Make calls over *peer* for the length of the block."""
        self._peer = peer
        yield
        self._peer = None

    def is_at(self, peer: Peer) -> bool:
        """Return whether *peer* is the connection to the controller."""
        return peer is self._peer

    def status(self) -> ControllerStatus:
        """Return what is known of the controller, and when it last reported."""
        status = ControllerStatus(process_id=self.process_id, version=self.version)
        if self._peer is None:
            return status
        silent_for = trio.current_time() - self._peer.heard_at
        if silent_for < _FRESH_FOR:
            return status
        is_stopped = state_of(self.process_id) in ("T", "t")
        if not is_stopped and silent_for < _CONFIRMED_WITHIN:
            return status
        state = "stopped" if is_stopped else ""
        return evolve(status, state=state, silent_for=round(silent_for, 3))

    async def call(self, operation: Operation) -> Object:
        """Have the controller carry out *operation*; return its answer.

        Raises:
            UnavailableError: the controller is not connected.
            CallFailedError: the controller answered that it failed.
        """
        peer = self._connected_peer()
        try:
            return await peer.call(*unparse_operation(operation))
        except ConnectionLostError as exc:
            raise _lost(exc) from exc

    async def relay(self, call: IncomingCall, operation: Operation) -> Object:
        """Pass on intermediate answers of the controller as fast as the caller reads.

        Raises:
            UnavailableError, CallFailedError: as for `call`.
        """
        peer = self._connected_peer()
        do, arguments = unparse_operation(operation)
        relay = Relay(call)
        fields: Object = {}
        error: SupervisorError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.run)
            try:
                fields = await peer.call(do, arguments, relay.offer)
            except ConnectionLostError as exc:
                error = _lost(exc)
            except SupervisorError as exc:
                error = exc
            await relay.finish()
            nursery.cancel_scope.cancel()
        if error is not None:
            raise error
        return fields

    async def restart_worker(self, worker: WorkerRecord, reason: str) -> None:
        """Restart *worker* if it still has the same process; used by monitors."""
        await self.call(
            Restart(
                names=(worker.name,),
                incarnation=worker.incarnation,
                generation=worker.generation,
                reason=reason,
            )
        )

    def report_denial(self, denial: ReportDenial) -> None:
        """Tell the controller, if it is connected, that a call was denied."""
        if self._peer is not None:
            with suppress(ConnectionLostError, UnavailableError):
                self._peer.post(*unparse_operation(denial))

    def report_spans(self, report: ReportSpans) -> bool:
        """Tell the controller of calls; return whether it is connected."""
        if self._peer is None:
            return False
        try:
            self._peer.post(*unparse_operation(report))
        except (ConnectionLostError, UnavailableError):
            return False
        return True

    async def wait_told(self) -> None:
        """Wait until the controller has been sent all reports."""
        if self._peer is not None:
            await self._peer.wait_drained()

    async def inspect(self, record: WorkerRecord | None) -> Object:
        """Return what the controller can see of a worker that does not answer.

        Empty if nothing is known; with ``fault`` if the inspection itself failed.
        """
        if record is None or record.process_id is None:
            return {}
        operation = Inspect(name=record.name, process_id=record.process_id)
        with trio.move_on_after(_INSPECT_WITHIN):
            try:
                return await self.call(operation)
            except CallFailedError as exc:
                if exc.error_class == "OperationFailed":  # a bug in the inspection
                    logger.error(
                        "%s: inspection from outside failed: %s", record.name, exc
                    )
                    return {"fault": f"inspection from outside failed: {exc.message}"}
            except UnavailableError:
                pass
        return {}

    async def last_lines(self, name: str) -> tuple[str, ...]:
        """Return what *name* printed last; empty if its output is not captured."""
        lines: list[str] = []

        def take(fields: Object) -> None:
            lines.extend(str(entry.get("message", "")) for entry in fields["entries"])

        if self._peer is not None:
            do, arguments = unparse_operation(Logs(names=(name,), tail=5))
            with trio.move_on_after(_INSPECT_WITHIN), suppress(SupervisorError):
                await self._peer.call(do, arguments, take)
        return tuple(lines)

    def _connected_peer(self) -> Peer:
        if self._peer is None:
            raise UnavailableError("the controller is not connected; try again")
        return self._peer


def _lost(exc: ConnectionLostError) -> UnavailableError:
    return UnavailableError(f"the controller is gone: {exc}")
