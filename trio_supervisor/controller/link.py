"""The controller's word to the supervisor: the picture of its workers, kept fresh."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, Protocol

import trio
from attrs import define, field

from trio_supervisor.controller.child import Child
from trio_supervisor.errors import ConnectionLostError, UnavailableError
from trio_supervisor.link.peer import Dispatch, Peer, open_peer
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.wire.codec import unparse_operation
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.messages import Gone, Update, WorkerRecord
from trio_supervisor.wire.session import Session

logger = logging.getLogger(__name__)

_AT_REST: Final = frozenset({State.READY, State.STOPPED, State.FAILED})
# How long changes are gathered before the supervisor is told [s].
_GATHER: Final = 0.005


class HasChildren(Protocol):
    """What the link reads."""

    supervisor: Child

    def everyone(self) -> Iterable[Child]:
        """Return all workers, of every generation."""
        ...


class OnConnected(Protocol):
    """Hears of each supervisor that comes and goes."""

    def __call__(self, is_connected: bool, *, is_planned: bool) -> None:
        """One is connected, or not any more: as planned, if it was retired."""
        ...


def record_of(child: Child) -> WorkerRecord:
    """Return what is told of *child*."""
    return WorkerRecord(
        name=child.name,
        service=child.plan.service,
        state=child.state.value,
        process_id=child.process.pid if child.process is not None else None,
        incarnation=child.incarnation,
        restarts=child.restarts,
        started_at=child.started_at,
        ready_at=child.ready_at,
        status=child.status,
        last_exit=child.last_exit,
        connects=child.plan.connects,
        generation=child.plan.generation,
        waiting_for=child.waiting_for,
        reason=child.why,
        needs=child.needs,
        is_stable=child.is_stable,
        crashes=child.crashes,
        next_try_at=child.next_try_at,
        last_line=child.last_line,
        problem=child.problem,
    )


@define(eq=False)
class SupervisorLink:
    """Tells one supervisor after another of every change, and takes its calls."""

    _owner: HasChildren
    _dispatch: Dispatch
    _on_connected: OnConnected
    _changed: dict[Child, None] = field(factory=dict, init=False)
    _gone: list[Gone] = field(factory=list, init=False)
    _wake: trio.Event = field(factory=trio.Event, init=False)
    _serving: Peer | None = field(default=None, init=False)
    _peer: Peer | None = field(default=None, init=False)
    """The same, once the supervisor knows everything."""
    is_connected: bool = field(default=False, init=False)
    _is_retired: bool = field(default=False, init=False)
    """Whether the one of now is to be replaced."""

    def tell(self, child: Child) -> None:
        """Have the supervisor told of *child*: at once of where it has come to rest,
        and of what it goes through together with what comes next.
        """
        self._changed[child] = None
        if child.state in _AT_REST:
            self.flush()
        else:
            self._wake.set()

    def tell_gone(self, child: Child) -> None:
        """Have the supervisor forget *child*."""
        self._changed.pop(child, None)
        self._gone.append(Gone(name=child.name, generation=child.plan.generation))
        self._wake.set()

    def flush(self) -> None:
        """Tell what is known now, ahead of whatever is said next."""
        if self._peer is None or not (self._changed or self._gone):
            return
        changed, self._changed = self._changed, {}
        try:
            self._peer.post(*self._update(changed))
        except (ConnectionLostError, UnavailableError) as exc:
            logger.debug("the supervisor was not told: %s", exc)
            self._peer.close()  # the next one is told everything

    def retire(self) -> None:
        """Have the supervisor accept nobody any more: another one comes at once.

        Else those who heard from it that a reload is done, and connect again, would
        find one that ends.
        """
        if self._peer is not None:
            self._is_retired = True
            changed, self._changed = self._changed, {}
            with suppress(ConnectionLostError, UnavailableError):
                self._peer.post(*self._update(changed, is_last=True))

    def hang_up(self) -> None:
        """End the connection to a supervisor that is gone.

        It ends by itself, unless somebody has a copy of the other end.
        """
        if self._serving is not None:
            self._serving.close()

    async def ask(self, do: str, arguments: Mapping[str, object]) -> Object:
        """Call the supervisor.

        Raises:
            UnavailableError: there is none at the moment.
            CallFailedError, ConnectionLostError: as of `Peer.call`.
        """
        if self._peer is None:
            raise UnavailableError("there is no supervisor at the moment")
        return await self._peer.call(do, arguments)

    async def serve(self, control: trio.abc.Stream) -> None:
        """Serve one supervisor until its end of *control* is closed."""
        session = Session(is_connecting=True)
        async with (
            open_peer(control, session, self._dispatch) as peer,
            trio.open_nursery() as nursery,
        ):
            self._serving = peer
            nursery.start_soon(self._send_changes, peer)
            await peer.closed.wait()
            nursery.cancel_scope.cancel()
        self._peer = self._serving = None
        was_retired, self._is_retired = self._is_retired, False
        if self.is_connected:
            self.is_connected = False
            self._on_connected(False, is_planned=was_retired)

    async def _send_changes(self, peer: Peer) -> None:
        # A new supervisor knows nothing: everything is news.
        self._changed = {}
        self._gone = []
        try:
            await peer.call(*self._update(self._owner.everyone()))
        except ConnectionLostError:
            return
        self._peer = peer
        self.is_connected = True
        self._on_connected(True, is_planned=False)
        while True:
            if not (self._changed or self._gone):
                self._wake = trio.Event()
                await self._wake.wait()
            # A restart is five changes; all but the last are not worth a wake-up of
            # the supervisor's process while the new worker needs the processor.
            await trio.sleep(_GATHER)
            self.flush()

    def _update(
        self, children: Iterable[Child], *, is_last: bool = False
    ) -> tuple[str, Object]:
        gone, self._gone = self._gone, []
        update = Update(
            workers=tuple(record_of(child) for child in children),
            gone=tuple(gone),
            restarts=self._owner.supervisor.restarts,
            is_last=is_last,
        )
        return unparse_operation(update)
