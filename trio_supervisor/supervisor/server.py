"""Accept connections of clients, workers and the controller, and serve each of them."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.errors import (
    ConnectionLostError,
    LimitExceededError,
    NotPermittedError,
    SupervisorError,
)
from trio_supervisor.link.credentials import (
    Credentials,
    HasOptions,
    peer_credentials,
    peer_descriptor,
)
from trio_supervisor.link.peer import Peer, open_peer
from trio_supervisor.policy.trace_sampling import TraceSampling
from trio_supervisor.process.cleanup.ancestry import Ancestry, ancestry_of
from trio_supervisor.process.sockets.accept import accept_all
from trio_supervisor.supervisor.call_spans import CallSpans
from trio_supervisor.supervisor.call_stats import CallStats, ConnectionStats
from trio_supervisor.supervisor.client_calls import ClientCalls
from trio_supervisor.supervisor.connection import ClientConnection
from trio_supervisor.supervisor.controller_calls import ControllerCalls
from trio_supervisor.supervisor.controller_link import ControllerLink
from trio_supervisor.supervisor.fair_share import FairShare, Turns
from trio_supervisor.supervisor.forwarding import Forwarding
from trio_supervisor.supervisor.idle_clients import IdleClients
from trio_supervisor.supervisor.monitoring import Monitoring
from trio_supervisor.supervisor.policy_calls import PolicyCalls
from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.supervisor.roles import Denials, Gatekeeper
from trio_supervisor.supervisor.unresponsive import CallWatch
from trio_supervisor.supervisor.worker_names import WorkerNames
from trio_supervisor.wire.envelope import failure
from trio_supervisor.wire.json_line import encode_object
from trio_supervisor.wire.limits import DEFAULT_LIMITS, TRUSTED_LIMITS, Limits
from trio_supervisor.wire.session import Session

logger = logging.getLogger(__name__)

# How long calls in progress may delay the next supervisor [s].
_LAST_CALLS: Final = 2.0

# If a timeout ends so much late, this process was stopped, or the host suspended [s].
_PAUSED: Final = 1.0


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
    """``NAME=VALUE`` in the environment of the controller's children."""
    limits: Limits = DEFAULT_LIMITS
    policy: PolicyCalls | None = None
    """The application's policy; None: it has none."""
    stats: CallStats = field(factory=CallStats)
    sampling: TraceSampling | None = None
    """Which calls are recorded as spans; None: no call."""
    accepting: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    """Around the accepting of connections."""
    gatekeeper: Gatekeeper = field(init=False)
    calls: ClientCalls = field(init=False)
    spans: CallSpans = field(init=False)
    """Records calls; its `run` has to be a task of the caller."""
    _controller: ControllerLink = field(init=False)
    _controller_calls: ControllerCalls = field(init=False)
    _forwarding: Forwarding = field(init=False)
    _share: FairShare = field(factory=FairShare, init=False)
    _idle: IdleClients = field(factory=IdleClients, init=False)
    _peers: set[Peer] = field(factory=set, init=False)
    """Of clients and workers."""

    def __attrs_post_init__(self) -> None:
        self._controller = ControllerLink(self.controller_pid, self.version)
        self.spans = CallSpans(self.sampling, self._controller.report_spans)
        names = WorkerNames(self.registry)
        self._forwarding = Forwarding(self.registry, names, self._controller)
        self._controller_calls = ControllerCalls(
            self.registry, self._forwarding, self.accepting.cancel, self.policy
        )
        self.calls = ClientCalls(
            registry=self.registry,
            names=names,
            controller=self._controller,
            forwarding=self._forwarding,
            monitoring=self.monitoring,
            process_id=self.process_id,
            incarnation=self.incarnation,
        )
        self.gatekeeper = Gatekeeper(
            registry=self.registry,
            controller_pid=self.controller_pid,
            owns_process=self.owns_process,
            denials=Denials(self._controller.report_denial),
        )

    @property
    def watch(self) -> CallWatch:
        """Watches the calls of workers; its `run` has to be a task of the caller."""
        return self._forwarding.watch

    async def finish_calls(self) -> None:
        """If another supervisor follows, answer the calls in progress, for a while.

        Otherwise the caller of a `scale` would not learn whether it was done.
        """
        if not self.accepting.cancel_called:
            return
        with trio.move_on_after(_LAST_CALLS):
            await self.stats.wait_idle()
            for peer in tuple(self._peers):
                await peer.wait_drained()

    async def finish(self) -> None:
        """Report the last calls."""
        self.spans.flush()
        await self._controller.wait_told()

    async def serve_connection(
        self,
        stream: trio.abc.Stream,
        credentials: Credentials,
        origin: Ancestry | None = None,
    ) -> None:
        """Answer a client or a worker until it hangs up; log what it does wrong.

        Args:
            origin: Ancestors of its process; None: this system does not tell.
        """
        if not (credentials.is_trusted or self.gatekeeper.is_worker(origin)):
            problem = f"user {credentials.user_id} may not connect here"
            await _refuse(stream, NotPermittedError(problem))
            return
        try:
            with (
                self._share.open(credentials.process_id) as turns,
                self.stats.connection() as counted_as,
            ):
                await self._serve(stream, credentials, origin, turns, counted_as)
        except LimitExceededError as exc:
            await _refuse(stream, exc)

    async def _serve(
        self,
        stream: trio.abc.Stream,
        credentials: Credentials,
        origin: Ancestry | None,
        turns: Turns,
        counted_as: ConnectionStats,
    ) -> None:
        session = Session(is_connecting=False, limits=self.limits, parses_large=False)
        connection = ClientConnection(
            calls=self.calls,
            gatekeeper=self.gatekeeper,
            credentials=credentials,
            origin=origin,
            account=turns.account,
            stats=self.stats,
            counted_as=counted_as,
            spans=self.spans,
        )
        async with open_peer(stream, session, connection.dispatch, turns) as peer:
            self._peers.add(peer)
            try:
                await self._expect_call(peer, credentials.process_id)
                await peer.closed.wait()
            finally:
                self._peers.discard(peer)
                connection.leave()
        who = f"pid {credentials.process_id}"
        if isinstance(peer.error, ConnectionLostError):  # its process exited
            logger.debug("connection of %s ended: %s", who, peer.error)
        elif peer.error is not None:
            logger.info("connection of %s closed: %s", who, peer.error)

    async def serve_socket(self, stream: trio.SocketStream) -> None:
        """Do the same for a connection that was just accepted."""
        try:
            credentials = peer_credentials(stream.socket)
        except OSError:  # it has already hung up
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

    async def serve_controller(self, stream: trio.abc.Stream) -> None:
        """Exchange calls with the controller until it closes its end of *stream*."""
        session = Session(is_connecting=False, limits=TRUSTED_LIMITS)
        dispatch = self._controller_calls.dispatch
        async with open_peer(stream, session, dispatch) as peer:
            with self._controller.connected(peer):
                await peer.closed.wait()

    async def _expect_call(self, peer: Peer, process_id: int | None) -> None:
        """Wait for the first call; hang up if none arrives in time."""
        if await _has_called(peer, self.limits.first_call):
            return
        if self._idle.may_stay(process_id):
            with self._idle.counted():
                await peer.has_called.wait()
        else:
            seconds = self.limits.first_call
            problem = f"no call within {seconds:g} s of connecting"
            peer.hang_up(LimitExceededError(problem))


async def serve_listener(server: Server, listener: trio.SocketListener) -> None:
    """Accept connections until cancelled; a failure of one does not affect the others.

    If only `Server.accepting` is cancelled, the connections continue.
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


async def _has_called(peer: Peer, within: float) -> bool:
    """Wait for the first call; return whether it arrived, or the connection ended.

    If this process was stopped in the meantime, the call may have arrived and is still
    to be read: the peer gets all of the time again.
    """
    while True:
        deadline = trio.current_time() + within
        with trio.move_on_at(deadline):
            await peer.has_called.wait()
        if peer.has_called.is_set() or peer.closed.is_set():
            return True
        if trio.current_time() < deadline + _PAUSED:
            return False


async def _refuse(stream: trio.abc.Stream, error: SupervisorError) -> None:
    async with stream:
        with trio.move_on_after(1):
            await _send_quietly(stream, encode_object(failure(error)))


async def _send_quietly(stream: trio.abc.Stream, line: bytes) -> None:
    try:
        await stream.send_all(line)
    except trio.BrokenResourceError:
        logger.debug("a peer hung up before it was refused")
