"""The controller's word to the supervisor: the picture of its workers, kept fresh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio
from attrs import define, field

from trio_supervisor.controller.child import Child
from trio_supervisor.errors import ConnectionLostError
from trio_supervisor.link.peer import Dispatch, Peer, open_peer
from trio_supervisor.wire.codec import unparse_operation
from trio_supervisor.wire.messages import Update, WorkerRecord
from trio_supervisor.wire.session import Session


class HasChildren(Protocol):
    """What the link reads."""

    children: dict[str, Child]
    supervisor: Child


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
    )


@define(eq=False)
class SupervisorLink:
    """Tells one supervisor after another of every change, and takes its calls."""

    _owner: HasChildren
    _dispatch: Dispatch
    _on_connected: Callable[[bool], None]
    _changed: dict[str, Child] = field(factory=dict, init=False)
    _wake: trio.Event = field(factory=trio.Event, init=False)
    is_connected: bool = field(default=False, init=False)

    def tell(self, child: Child) -> None:
        """Have the supervisor told of *child*, with all that changes until then."""
        self._changed[child.name] = child
        self._wake.set()

    async def serve(self, control: trio.abc.Stream) -> None:
        """Serve one supervisor until its end of *control* is closed."""
        session = Session(is_connecting=True)
        async with (
            open_peer(control, session, self._dispatch) as peer,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._send_changes, peer)
            await peer.closed.wait()
            nursery.cancel_scope.cancel()
        if self.is_connected:
            self.is_connected = False
            self._on_connected(False)

    async def _send_changes(self, peer: Peer) -> None:
        # A new supervisor knows nothing: everything is news.
        self._changed = dict(self._owner.children)
        try:
            while True:
                changed, self._changed = self._changed, {}
                await self._send(peer, list(changed.values()))
                if not self.is_connected:
                    self.is_connected = True
                    self._on_connected(True)
                if not self._changed:
                    self._wake = trio.Event()
                    await self._wake.wait()
        except ConnectionLostError:
            return

    async def _send(self, peer: Peer, children: list[Child]) -> None:
        update = Update(
            workers=tuple(record_of(child) for child in children),
            restarts=self._owner.supervisor.restarts,
        )
        do, arguments = unparse_operation(update)
        await peer.call(do, arguments)
