"""Answers workers, people and the controller."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

import trio
from attrs import define, evolve, field

from trio_supervisor.errors import (
    BadRequestError,
    CallFailedError,
    ConnectionLostError,
    DeadlineExceededError,
    LimitExceededError,
    NoSuchWorkerError,
    NotConnectedError,
    NotPermittedError,
    SupervisorError,
    UnavailableError,
    UnknownOperationError,
)
from trio_supervisor.link.credentials import (
    Credentials,
    HasOptions,
    peer_credentials,
    peer_descriptor,
)
from trio_supervisor.link.peer import Answer, Fields, IncomingCall, Peer, open_peer
from trio_supervisor.policy.addressing import AmbiguousNameError
from trio_supervisor.process.cleanup.ancestry import Ancestry, ancestry_of
from trio_supervisor.process.inspection.kernel_threads import state_of
from trio_supervisor.process.sockets.accept import accept_all
from trio_supervisor.supervisor.fair_share import Account, FairShare, Turns
from trio_supervisor.supervisor.idle_clients import QuietClients
from trio_supervisor.supervisor.monitoring import Monitoring
from trio_supervisor.supervisor.registry import Registered, Registry, WorkerHandle
from trio_supervisor.supervisor.relay import Relay
from trio_supervisor.supervisor.roles import (
    Denials,
    Gatekeeper,
    Role,
    is_free,
    is_own_status,
)
from trio_supervisor.supervisor.unresponsive import (
    PATIENCE,
    Asked,
    Watch,
    diagnosis_of,
    look_twice,
)
from trio_supervisor.supervisor.worker_updates import Updates
from trio_supervisor.wire.brief import brief
from trio_supervisor.wire.codec import parse_operation, to_fields, unparse_operation
from trio_supervisor.wire.json_line import encode_object
from trio_supervisor.wire.json_tree import Object, has_more_containers
from trio_supervisor.wire.limits import (
    DEFAULT_LIMITS,
    MAX_NAME,
    MAX_STATE,
    MAX_STATE_CONTAINERS,
    TRUSTED_LIMITS,
    Limits,
)
from trio_supervisor.wire.messages import (
    AbortReload,
    ControllerStatus,
    Denied,
    Doctor,
    Events,
    Forward,
    Health,
    Inspect,
    Logs,
    Operation,
    Ping,
    Register,
    Reload,
    Restart,
    Scale,
    Shutdown,
    Start,
    Status,
    StatusReport,
    Stop,
    SupervisorStatus,
    Update,
    WorkerRecord,
    Workers,
)
from trio_supervisor.wire.messages import Registered as RegisteredResult
from trio_supervisor.wire.session import PlainFailure, Session, failure

logger = logging.getLogger(__name__)

# The controller speaks first of all; one that is stopped keeps nobody waiting for long.
_INFORMED_WITHIN: Final = 2.0
# The controller's own look takes half of that at most [s].
_SHORT_LOOK: Final = 0.5
"""At what cannot look at itself [s]."""
_LOOK_WITHIN: Final = 1.5
_TRIES: Final = 2
# A process is gone so soon after its connection, if that is why it ended [s].
_ENDS_WITHIN: Final = 0.5
# The supervisor reads the end of a connection within a turn of its loop [s].
_SETTLED_WITHIN: Final = 0.05
# A picture of the workers that is younger is not looked into [s].
_FRESH_FOR: Final = 1.0
# The controller confirms it every 5 s; later than this something is wrong [s].
_CONFIRMED_WITHIN: Final = 12.0
# The controller tells of a process within milliseconds of its start [s].
_KNOWN_WITHIN: Final = 1.0
_STREAMS: Final = frozenset({"events", "logs"})
"""Calls that are answered for as long as somebody listens."""
# Ruby's clients name a signal. None of them is ever sent.
_RESTART_SIGNALS: Final = frozenset({None, "HUP", "INT", "TERM"})


@define(eq=False, kw_only=True)
class Server:
    """The supervisor's side of all connections."""

    registry: Registry
    monitoring: Monitoring
    process_id: int
    incarnation: int
    controller_pid: int
    version: str
    owns_process: bool = False
    """Whether the controller's process has no children but the controller's."""
    marker: bytes = b""
    """What the controller's children have in their environment, as ``NAME=VALUE``."""
    limits: Limits = DEFAULT_LIMITS
    watch: Watch = field(factory=Watch, init=False)
    """Over what is asked of workers; somebody has to run it."""
    accepting: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    """Around the accepting of connections."""
    gatekeeper: Gatekeeper = field(init=False)
    _share: FairShare = field(factory=FairShare, init=False)
    _quiet: QuietClients = field(factory=QuietClients, init=False)
    _started_at: float = field(factory=trio.current_time, init=False)
    _controller: Peer | None = field(default=None, init=False)
    _updates: Updates = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._updates = Updates(self.registry)
        self.gatekeeper = Gatekeeper(
            registry=self.registry,
            controller_pid=self.controller_pid,
            owns_process=self.owns_process,
            denials=Denials(self._tell_denied),
        )

    # Connections.

    async def serve_connection(
        self,
        stream: trio.abc.Stream,
        credentials: Credentials,
        origin: Ancestry | None = None,
    ) -> None:
        """Answer one client or worker until it is gone. Never raises for its sake.

        Args:
            origin: Where its process comes from; None: this system does not tell.
        """
        if not credentials.is_trusted:
            problem = f"user {credentials.user_id} may not connect here"
            await _refuse(stream, NotPermittedError(problem))
            return
        try:
            with self._share.open(credentials.process_id) as turns:
                await self._serve(stream, credentials, origin, turns)
        except LimitExceededError as exc:
            await _refuse(stream, exc)

    async def _serve(
        self,
        stream: trio.abc.Stream,
        credentials: Credentials,
        origin: Ancestry | None,
        turns: Turns,
    ) -> None:
        session = Session(is_connecting=False, limits=self.limits, parses_large=False)
        caller = _Caller(self, credentials, origin, turns.account)
        async with open_peer(stream, session, caller.dispatch, turns) as peer:
            try:
                await self._expect_call(peer, credentials.process_id)
                await peer.closed.wait()
            finally:
                caller.leave()
        if isinstance(peer.error, ConnectionLostError):  # a worker that was killed
            logger.debug("a connection ended: %s", peer.error)
        elif peer.error is not None:
            logger.info("a connection ended: %s", peer.error)

    async def serve_socket(self, stream: trio.SocketStream) -> None:
        """The same for a connection that was just accepted."""
        try:
            credentials = peer_credentials(stream.socket)
        except OSError:  # it has hung up already
            await trio.aclose_forcefully(stream)
            return
        await self.serve_connection(
            stream, credentials, self._origin_of(stream.socket, credentials)
        )

    def _origin_of(
        self, connection: HasOptions, credentials: Credentials
    ) -> Ancestry | None:
        if credentials.process_id is None:
            return None
        descriptor = peer_descriptor(connection)
        try:
            return ancestry_of(
                credentials.process_id, self.controller_pid, self.marker, descriptor
            )
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _tell_denied(self, denied: Denied) -> None:
        if self._controller is None:
            return
        with suppress(ConnectionLostError, UnavailableError):
            self._controller.post(*unparse_operation(denied))

    async def serve_controller(self, stream: trio.abc.Stream) -> None:
        """Hear and steer the controller until its end of *stream* is closed."""
        session = Session(is_connecting=False, limits=TRUSTED_LIMITS)
        async with open_peer(stream, session, self._dispatch_controller) as peer:
            self._controller = peer
            await peer.closed.wait()
        self._controller = None

    async def _expect_call(self, peer: Peer, process_id: int | None) -> None:
        with trio.move_on_after(self.limits.first_call) as scope:
            await peer.has_called.wait()
        if not scope.cancelled_caught or peer.closed.is_set():
            return
        if self._quiet.tolerates(process_id):
            with self._quiet.one_more():
                await peer.has_called.wait()
        else:
            seconds = self.limits.first_call
            problem = f"no call within {seconds:g} s of connecting"
            peer.hang_up(LimitExceededError(problem))

    def _dispatch_controller(self, call: IncomingCall) -> Answer:
        match parse_operation(call.do, call.arguments):
            case Update() as update:
                if update.is_last:
                    self.accepting.cancel()
                answer = self._updates.take(update)
                self._end_dead_connections()
                return answer
            case Forward() as forward:
                return self.forward(call, forward)
            case Ping():
                return {}
        raise UnknownOperationError(f"not for the controller: {brief(call.do)}")

    def _end_dead_connections(self) -> None:
        """End the connections of workers whose process is gone.

        A child of such a worker that has inherited its end of the connection would keep
        it open, and calls would wait for an answer that cannot come.
        """
        for worker in self.registry.take_former():
            if state_of(worker.process_id) in ("", "Z", "X"):
                name, pid = worker.own_name, worker.process_id
                logger.debug("%s (pid %d) is gone; closing its connection", name, pid)
                worker.peer.close()

    # Calls of clients and workers.

    def status(self, *, is_full: bool) -> Object:
        """Return the `StatusReport` as fields."""
        connections = self.registry.shown_connections() if is_full else ()
        report = StatusReport(
            supervisor=SupervisorStatus(
                process_id=self.process_id,
                incarnation=self.incarnation,
                uptime=round(trio.current_time() - self._started_at, 3),
            ),
            controller=self._controller_status(),
            workers=(),
        )
        return {
            **to_fields(report),
            "workers": self.registry.statuses(time.monotonic()),
            "connections": list(connections),
        }

    def _controller_status(self) -> ControllerStatus:
        """Return what is known of the controller, and how old its picture is."""
        status = ControllerStatus(process_id=self.controller_pid, version=self.version)
        if self._controller is None:
            return status
        silent_for = trio.current_time() - self._controller.heard_at
        if silent_for < _FRESH_FOR:
            return status
        is_stopped = state_of(self.controller_pid) in ("T", "t")
        if not is_stopped and silent_for < _CONFIRMED_WITHIN:
            return status
        state = "stopped" if is_stopped else ""
        return evolve(status, state=state, silent_for=round(silent_for, 3))

    def full_status(self, call: IncomingCall) -> Object:
        """Send each monitor's status, and return the `StatusReport` as fields."""
        for name, status in self.monitoring.statuses().items():
            call.progress({name: status})
        return self.status(is_full=True)

    async def when_informed(self, call: IncomingCall, *, is_full: bool) -> Object:
        """Return the same once the controller has said what it knows, or soon.

        Else a supervisor that has just begun would take its workers for strangers.
        """
        with trio.move_on_after(_INFORMED_WITHIN):
            await self.registry.wait_informed()
        return self.full_status(call) if is_full else self.status(is_full=False)

    async def own_status(self, role: Role) -> Object:
        """Return of the `StatusReport` what is about *role* itself."""
        with trio.move_on_after(_INFORMED_WITHIN):
            await self.registry.wait_informed()
        return role.own(self.status(is_full=True))

    async def when_ready(self) -> Object:
        """Return the `StatusReport` once all workers are ready and connected."""
        await self.registry.wait_ready()
        return self.status(is_full=False)

    async def forward(self, call: IncomingCall, forward: Forward) -> Object:
        """Have a worker run an operation, and pass on what it answers."""
        operation = dict(forward.operation)
        do = operation.pop("do", None)
        if not isinstance(do, str):
            raise BadRequestError("operation.do: expected the name of an operation")
        if do == "cancel":
            raise BadRequestError(
                "operation: cancel is not forwarded; it ends a call of the same "
                "connection, as that of the forward itself"
            )
        if (forward.connection_id is None) == (forward.name is None):
            raise BadRequestError("expected either connection_id or name")
        if reserved := {"id", "finished", "failed", "error"}.intersection(operation):
            names = ", ".join(sorted(reserved))
            raise BadRequestError(f"operation: not the name of an argument: {names}")
        if do == "thread_dump":
            return await self._dump_threads(call, forward, operation)
        try:
            worker = await self._find(call, forward)
        except NotConnectedError as exc:
            if do != "doctor":
                raise self._with_advice(exc, forward) from None
            with trio.move_on_after(forward.timeout):
                if (found := await self._examine_unconnected(forward)) is not None:
                    return found
                found = await self._examine_outside(forward, operation)
                if found is not None:
                    return found
            worker = self.registry.find(forward.connection_id, forward.name)
        return await self._ask(call, forward, worker, do, operation)

    def _with_advice(
        self, exc: NotConnectedError, forward: Forward
    ) -> NotConnectedError:
        """Return *exc* with what to do about a process that runs all the same."""
        record = self.registry.records.get(self.registry.steerable(forward.name or ""))
        if record is None or record.process_id is None or not record.connects:
            return exc
        return NotConnectedError(
            f"{exc} (pid {record.process_id}); its agent has not registered, or could "
            "not: `thread-dump` and `doctor` look at it from outside"
        )

    async def _find(self, call: IncomingCall, forward: Forward) -> Registered:
        """Return the connection that *forward* means."""
        try:
            return self.registry.find(forward.connection_id, forward.name)
        except AmbiguousNameError:
            # One of them may have hung up just now: give its end time to be noticed.
            await trio.sleep(_SETTLED_WITHIN)
            return self.registry.find(forward.connection_id, forward.name)
        except NoSuchWorkerError:
            # Ruby's clients name a connection, and no time. Without an id it is ours,
            # and finds out who we are.
            if not forward.connection_id or "timeout" in call.arguments:
                raise
        raise PlainFailure("Connection not found", connection_id=forward.connection_id)

    async def _dump_threads(
        self, call: IncomingCall, forward: Forward, operation: Object
    ) -> Object:
        """Return stacks: they can be had from outside, too, where no agent answers."""
        try:
            worker = await self._find(call, forward)
        except NotConnectedError as exc:
            name = self.registry.steerable(forward.name or "")
            record = self.registry.records.get(name)
            seen = await self._look_from_outside(record)
            if fault := seen.get("fault"):
                raise NotConnectedError(f"{exc}; {fault}") from None
            if not seen.get("way"):
                raise
            return {**seen, "threads": []}
        patience = min(forward.timeout / 2, PATIENCE)
        with trio.move_on_after(patience):
            return await worker.peer.call(
                "thread_dump",
                operation,
                call.progress,
                takes_unparsed=call.peer is not self._controller,
            )
        seen = await self._look_from_outside(self.registry.record_of(worker))
        if seen.get("way"):
            return {**seen, "threads": []}
        raise _no_answer(forward, worker, "thread_dump", patience)

    async def _ask(
        self,
        call: IncomingCall,
        forward: Forward,
        worker: Registered,
        do: str,
        operation: Object,
    ) -> Object:
        """Return what *worker* answers in time, unless it surely cannot."""
        asked = Asked(
            worker.peer,
            lambda: self._look_from_outside(self.registry.record_of(worker)),
            trio.move_on_after(forward.timeout),
        )
        record = self.registry.record_of(worker)
        self.watch.begin(asked)
        try:
            with asked.waiting:
                # It is passed on as it came: parsing it would keep everybody waiting.
                return await worker.peer.call(
                    do,
                    operation,
                    call.progress,
                    takes_unparsed=call.peer is not self._controller,
                )
        except CallFailedError as exc:
            if do != "doctor" or exc.error_class != "Exhausted" or record is None:
                raise
            return await self._examine_exhausted(record, exc.message)
        except ConnectionLostError as exc:
            passed = trio.current_time() - asked.since
            return await self._tell_end(exc, record, do, passed)
        finally:
            self.watch.end(asked)
        seen, passed = asked.standstill, trio.current_time() - asked.since
        if seen is not None and do == "doctor":
            heard = f"last heard of {_silent_for(worker):.1f} s ago"
            return diagnosis_of(seen, worker.process_id, passed, heard)
        state = seen.text if seen is not None else ""
        if seen is None:
            outside = await self._look_from_outside(self.registry.record_of(worker))
            state = str(outside.get("fault", ""))
            if outside.get("way") == "kernel":
                state = str(outside["data"])
        raise _no_answer(forward, worker, do, passed, state)

    async def _tell_end(
        self,
        lost: ConnectionLostError,
        record: WorkerRecord | None,
        do: str,
        duration: float,
    ) -> Object:
        """Say how a worker ended that was asked *do*; a doctor shows it."""
        end: Object = {}
        for _ in range(_TRIES):  # its connection ends before its process does
            end = await self._look_from_outside(record)
            if end.get("way") in ("ended", None):
                break
            await trio.sleep(_ENDS_WITHIN)
        if record is None or end.get("way") != "ended":
            raise lost
        if do == "doctor":
            from trio_supervisor.supervisor.doctor import diagnose_end

            now = self.registry.records.get(record.name)
            return diagnose_end(record, end, duration, now)
        path = end.get("post_mortem")
        raise ConnectionLostError(
            f"{record.name} (pid {record.process_id}) ended before it answered "
            f"{brief(do)}: {end.get('exit')}{f'; post-mortem: {path}' if path else ''}"
        ) from lost

    async def _examine_outside(
        self, forward: Forward, operation: Object
    ) -> Object | None:
        """Return what can be known of a command, or a worker without an agent."""
        from trio_supervisor.supervisor.doctor import (
            diagnose_end,
            examine_from_outside,
        )

        duration = parse_operation("doctor", operation)
        name = self.registry.steerable(forward.name or "")
        record = self.registry.records.get(name)
        is_connected = record is not None and self.registry.is_connected(name)
        if record is None or is_connected or not isinstance(duration, Doctor):
            return None
        lines = await self._last_lines(name)
        began = trio.current_time()
        found = await examine_from_outside(record, duration.duration, lines)
        if found is None or self._has_ended(record):
            end = await self._look_from_outside(record)
            passed = trio.current_time() - began
            return diagnose_end(record, end, passed, self.registry.records.get(name))
        return found

    async def _examine_exhausted(self, record: WorkerRecord, problem: str) -> Object:
        """Return what can be known of a worker that cannot look at itself."""
        from trio_supervisor.supervisor.doctor import examine_from_outside

        lines = await self._last_lines(record.name)
        found = await examine_from_outside(record, _SHORT_LOOK, lines, problem)
        if found is None:
            raise UnavailableError(f"{record.name} cannot look at itself: {problem}")
        return found

    def _has_ended(self, record: WorkerRecord) -> bool:
        now = self.registry.records.get(record.name)
        return now is None or now.process_id != record.process_id

    async def _last_lines(self, name: str) -> tuple[str, ...]:
        """Return what *name* printed lately; empty: nobody captures that."""
        lines: list[str] = []

        def take(fields: Object) -> None:
            lines.extend(str(entry.get("message", "")) for entry in fields["entries"])

        if self._controller is not None:
            do, arguments = unparse_operation(Logs(names=(name,), tail=5))
            with trio.move_on_after(_LOOK_WITHIN), suppress(SupervisorError):
                await self._controller.call(do, arguments, take)
        return tuple(lines)

    async def _examine_unconnected(self, forward: Forward) -> Object | None:
        """Return a diagnosis of a worker that cannot even connect; None: it may."""
        name = self.registry.steerable(forward.name or "")
        record = self.registry.records.get(name)
        if record is None or record.process_id is None or not record.connects:
            return None

        def is_silent() -> bool:
            is_same = self.registry.records.get(name) == record
            return is_same and not self.registry.is_connected(name)

        look = partial(self._look_from_outside, record)
        began = trio.current_time()
        for _ in range(_TRIES):  # a look may come too late on a busy machine
            seen = await look_twice(look, is_silent)
            if seen is not None:
                passed = trio.current_time() - began
                heard = "it is not connected"
                return diagnosis_of(seen, record.process_id, passed, heard)
            if not is_silent():
                break
        return None

    async def _look_from_outside(self, record: WorkerRecord | None) -> Object:
        """Return what the controller can see of a worker that does not answer."""
        if record is None or record.process_id is None:
            return {}
        operation = Inspect(name=record.name, process_id=record.process_id)
        with trio.move_on_after(_LOOK_WITHIN):
            try:
                return await self.steer(operation)
            except CallFailedError as exc:
                if exc.error_class == "OperationFailed":  # a fault in the look
                    logger.error("cannot look at %s from outside: %s", record.name, exc)
                    return {"fault": f"the look from outside failed: {exc.message}"}
            except UnavailableError:
                pass
        return {}

    async def steer(self, operation: Operation) -> Object:
        """Have the controller carry out *operation*."""
        if self._controller is None:
            raise UnavailableError("the controller is not connected at the moment")
        do, arguments = unparse_operation(operation)
        try:
            return await self._controller.call(do, arguments)
        except ConnectionLostError as exc:
            raise UnavailableError(f"the controller is gone: {exc}") from exc

    async def relay(self, call: IncomingCall, operation: Operation) -> Object:
        """Pass on what the controller tells, as fast as the caller takes it."""
        if self._controller is None:
            raise UnavailableError("the controller is not connected at the moment")
        do, arguments = unparse_operation(operation)
        relay = Relay(call)
        fields: Object = {}
        error: SupervisorError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.run)
            try:
                fields = await self._controller.call(do, arguments, relay.offer)
            except ConnectionLostError as exc:
                error = UnavailableError(f"the controller is gone: {exc}")
            except SupervisorError as exc:
                error = exc
            await relay.finish()
            nursery.cancel_scope.cancel()
        if error is not None:
            raise error
        return fields

    async def restart_worker(self, name: str, incarnation: int, reason: str) -> None:
        """What monitors use: replace *name*, if it is still in *incarnation*."""
        await self.steer(Restart(names=(name,), incarnation=incarnation, reason=reason))


@define(eq=False)
class _Caller:
    """One connection to the server: a client, or a worker once it registered."""

    _server: Server
    _credentials: Credentials
    _origin: Ancestry | None
    _account: Account
    _is_operator: bool = field(default=False, init=False)
    _has_waited: bool = field(default=False, init=False)
    """Whether the controller had time to tell of its worker."""
    _worker: Registered | None = field(default=None, init=False)
    _handle: WorkerHandle | None = field(default=None, init=False)

    def dispatch(self, call: IncomingCall) -> Answer:
        """Answer *call*, or return what does."""
        if not is_free(call) and (role := self._role()) is not None:
            if role.record is None and not self._has_waited:
                later = self._answer_once_known(call)
                return self._account.counted(later, is_stream=call.do in _STREAMS)
            answer = self._answer_worker(call, role)
        else:
            answer = self._answer(call)
        if isinstance(answer, Coroutine):
            return self._account.counted(answer, is_stream=call.do in _STREAMS)
        return answer

    async def _answer_once_known(self, call: IncomingCall) -> Fields:
        """Answer a worker of which the controller may not have told yet."""
        with trio.move_on_after(_KNOWN_WITHIN):
            while (role := self._role()) is not None and role.record is None:
                await self._server.registry.wait_news()
        self._has_waited = True
        role = self._role()
        found = self._answer(call) if role is None else self._answer_worker(call, role)
        return await found if isinstance(found, Coroutine) else found

    def _answer_worker(self, call: IncomingCall, role: Role) -> Answer:
        if is_own_status(call, role):
            return self._server.own_status(role)
        self._server.gatekeeper.check(call, role)
        return self._answer(call)

    def _role(self) -> Role | None:
        """Return what this connection may do; None: everything."""
        if self._is_operator:
            return None
        registered = None if self._worker is None else self._worker.process_id
        role = self._server.gatekeeper.role_of(self._origin, registered)
        self._is_operator = role is None
        return role

    def _answer(self, call: IncomingCall) -> Answer:
        server = self._server
        arguments = call.arguments
        if call.do == "register" and arguments.get("state") is None:
            arguments = {
                **arguments,
                "state": {},
            }  # Ruby's workers have none by default
        match parse_operation(call.do, arguments):
            case Ping():
                return {}
            case Status() if server.registry.is_informed:
                return server.full_status(call)
            case Status():
                return server.when_informed(call, is_full=True)
            case Workers(wait_ready=True):
                return server.when_ready()
            case Workers() if server.registry.is_informed:
                return server.status(is_full=False)
            case Workers():
                return server.when_informed(call, is_full=False)
            case Register(state=state):
                return self._register(call.peer, state)
            case Forward() as forward:
                return server.forward(call, forward)
            case Restart(signal=signal) as restart:
                if signal not in _RESTART_SIGNALS:
                    raise BadRequestError(
                        f"signal: expected HUP, INT or TERM, got {brief(signal)}"
                    )
                if signal == "HUP":
                    return server.steer(Reload())
                return server.steer(evolve(restart, names=self._names(restart.names)))
            case Stop(names=names) | Start(names=names) as it:
                return server.steer(evolve(it, names=self._names(names) or ()))
            case Shutdown(wait=True) as it:
                return server.relay(call, it)
            case Shutdown() | Scale() | Health() | Reload() | AbortReload() as it:
                return server.steer(it)
            case Logs(names=names) as it:
                return server.relay(call, evolve(it, names=self._names(names)))
            case Events() as operation:
                return server.relay(call, operation)
        raise UnknownOperationError(f"the supervisor does not answer {brief(call.do)}")

    def _names(self, words: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Return the names that the controller knows *words* by; None: all."""
        if words is None:
            return None
        return self._server.registry.all_steerable(words)

    def leave(self) -> None:
        """The connection is over."""
        if self._worker is not None and self._handle is not None:
            self._server.registry.remove(self._worker)
            self._server.monitoring.remove(self._handle)

    def _register(self, peer: Peer, state: dict[str, Any]) -> Mapping[str, object]:
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
        size = _checked_size(state)
        self._is_operator = False  # what registers is a worker
        if self._worker is None:
            server = self._server
            server.registry.check_room(size)
            self._worker = Registered(peer, process_id, state, size)
            self._handle = WorkerHandle(
                self._worker, server.registry, server.restart_worker, time.monotonic
            )
            server.registry.add(self._worker)
            server.monitoring.register(self._handle)
        else:
            # The same one, with news of itself; its name may be one of them.
            self._server.registry.remove(self._worker)
            self._worker.renew(state, size)
            self._server.registry.add(self._worker)
        return to_fields(RegisteredResult(connection_id=self._worker.connection_id))


async def serve_listener(server: Server, listener: trio.SocketListener) -> None:
    """Accept until cancelled; one connection that fails is not the others' trouble.

    When only `Server.accepting` is cancelled, the connections go on.
    """
    serve_one = partial(_serve_one, server)
    async with trio.open_nursery() as handlers:
        with server.accepting:
            await accept_all(listener, serve_one, handlers, "supervisor")


async def _serve_one(server: Server, stream: trio.SocketStream) -> None:
    try:
        await server.serve_socket(stream)
    except Exception:
        logger.exception("a connection failed")


def _silent_for(worker: Registered) -> float:
    return trio.current_time() - worker.peer.heard_at


def _no_answer(
    forward: Forward, worker: Registered, do: str, passed: float, state: str = ""
) -> DeadlineExceededError:
    return DeadlineExceededError(
        f"{forward.name or forward.connection_id} (pid {worker.process_id}) gave no "
        f"answer to {brief(do)} within {round(passed, 1):g} s, and was last heard of "
        f"{_silent_for(worker):.1f} s ago{f'; {state}' if state else ''}"
    )


def _checked_size(state: Object) -> int:
    """Return the size of *state* as JSON [bytes], if that and its name are bounded."""
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
    # Each is visited by the garbage collector for as long as the worker is connected.
    if has_more_containers(line, MAX_STATE_CONTAINERS):
        raise LimitExceededError(
            f"state has more than {MAX_STATE_CONTAINERS} arrays and objects"
        )
    return size


async def _refuse(stream: trio.abc.Stream, error: SupervisorError) -> None:
    async with stream:
        with trio.move_on_after(1):
            await _send_quietly(stream, encode_object(failure(error)))


async def _send_quietly(stream: trio.abc.Stream, line: bytes) -> None:
    try:
        await stream.send_all(line)
    except trio.BrokenResourceError:
        logger.debug("a peer that was refused hung up")
