"""Keep the supervisor's copy of the worker records up to date."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, Protocol

import trio
from attrs import define, evolve, field

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.events import Event, SupervisorResynchronized
from trio_supervisor.controller.worker_changes import Changes, Roster
from trio_supervisor.errors import (
    SupervisorError,
    UnavailableError,
)
from trio_supervisor.link.peer import Dispatch, Peer, open_peer
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.tasks import open_nursery
from trio_supervisor.wire.codec import parse_result, unparse_operation
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.limits import TRUSTED_LIMITS
from trio_supervisor.wire.messages import Update, UpdateReport
from trio_supervisor.wire.session import Session
from trio_supervisor.wire.workers import WorkerRecord

logger = logging.getLogger(__name__)

_AT_REST: Final = frozenset({State.READY, State.STOPPED, State.FAILED})
# Interval over which changes are batched before they are sent [s].
_GATHER: Final = 0.005
# How often the supervisor's picture is compared with ours [s].
CHECK_INTERVAL: Final = 5.0
# Workers in one part of a snapshot, which as a line must not be too long.
_PART: Final = 200


class HasChildren(Protocol):
    """What the link reads."""

    supervisor: Child

    def everyone(self) -> Iterable[Child]:
        """Return all workers, of every generation."""
        ...

    def knows(self, child: Child) -> bool:
        """Return whether *child* is one of them."""
        ...

    def counts(self, child: Child) -> bool:
        """Return whether the application is not ready without *child*."""
        ...

    def on_event(self, event: Event) -> None:
        """Report an event that an operator may want to know."""
        ...


class OnConnected(Protocol):
    """Callback for each connection and disconnection of a supervisor."""

    def __call__(self, is_connected: bool, *, is_planned: bool) -> None:
        """One is connected, or not any more: as planned, if it was retired."""
        ...


def record_of(child: Child, *, counts: bool = True) -> WorkerRecord:
    """Return the record of *child* for the supervisor."""
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
        schedule=child.runs,
        canary=child.canary,
        counts=counts,
        may=child.plan.may,
    )


@define(eq=False)
class SupervisorLink:
    """Link to the current supervisor: sends every change and serves its calls."""

    _owner: HasChildren
    _dispatch: Dispatch
    _on_connected: OnConnected
    _roster: Roster = field(init=False)
    _sequence: int = field(default=0, init=False)
    """Sequence number of the last update."""
    _is_told: bool = field(default=False, init=False)
    """Whether changes may be told: not in the middle of a snapshot."""
    _was_different: bool = field(default=False, init=False)
    """Whether the last check found a difference."""
    _wake: trio.Event = field(factory=trio.Event, init=False)
    _serving: Peer | None = field(default=None, init=False)
    _peer: Peer | None = field(default=None, init=False)
    """The same peer, once the supervisor has the whole snapshot."""
    _waiting: trio.lowlevel.ParkingLot = field(
        factory=trio.lowlevel.ParkingLot, init=False
    )
    """Tasks that wait for a supervisor."""
    is_connected: bool = field(default=False, init=False)
    _is_retired: bool = field(default=False, init=False)
    """Whether the one of now is to be replaced."""

    def __attrs_post_init__(self) -> None:
        self._roster = Roster(self._record_of)

    def tell(self, child: Child) -> None:
        """Report *child* to the supervisor.

        A state at rest is reported immediately, one in passing with the next change.
        """
        if not self._owner.knows(child):
            return  # the last words of one that was told to be gone
        self._roster.note(child)
        if child.state in _AT_REST:
            self.flush()
        else:
            self._wake.set()

    def tell_together(self, children: Iterable[Child]) -> None:
        """Send the changes of *children* in one update."""
        for child in children:
            if self._owner.knows(child):
                self._roster.note(child)
        self._wake.set()

    def tell_gone(self, child: Child) -> None:
        """Remove *child* from the supervisor's copy."""
        self._roster.drop(child)
        self._wake.set()

    def flush(self) -> None:
        """Send pending changes now, before any later message."""
        if self._peer is None or not self._is_told or not self._roster:
            return
        try:
            self._post(self._peer, self._update(self._roster.take()))
        except SupervisorError as exc:
            logger.debug("update to the supervisor failed: %s", exc)
            self._peer.close()  # the next one is told everything

    def retire(self) -> None:
        """Make the supervisor accept no more clients; its replacement follows.

        Otherwise clients that reconnect after a reload would reach a supervisor that is
        about to exit.
        """
        if self._peer is not None:
            self._is_retired = True
            with suppress(SupervisorError):
                is_told = self._is_told
                changes = self._roster.take() if is_told else Changes()
                update = self._update(changes, is_last=True, is_partial=not is_told)
                self._post(self._peer, update)

    def hang_up(self) -> None:
        """Close the connection to a supervisor that has exited.

        It closes on its own unless another process holds a copy of the other end.
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
            raise UnavailableError("the supervisor is not connected; try again")
        return await self._peer.call(do, arguments)

    async def wait_connected(self) -> None:
        """Wait until a supervisor can be called."""
        while self._peer is None:
            await self._waiting.park()

    async def serve(self, control: trio.abc.Stream) -> None:
        """Serve one supervisor until its end of *control* is closed."""
        session = Session(is_connecting=True, limits=TRUSTED_LIMITS)
        async with (
            open_peer(control, session, self._dispatch) as peer,
            open_nursery() as nursery,
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
        try:
            await self._send_snapshot(peer)
        except SupervisorError as exc:
            logger.debug("update to the supervisor failed: %s", exc)
            peer.close()
            return
        self._peer = peer
        self._waiting.unpark_all()
        self.is_connected = True
        self._on_connected(True, is_planned=False)
        async with open_nursery() as nursery:
            nursery.start_soon(self._check, peer)
            while True:
                if not (self._roster and self._is_told):
                    self._wake = trio.Event()
                    await self._wake.wait()
                # A restart is five changes; all but the last are not worth a wake-up of
                # the supervisor's process while the new worker needs the processor.
                await trio.sleep(_GATHER)
                self.flush()

    async def _send_snapshot(self, peer: Peer) -> None:
        """Replace all that the supervisor knows, and wait until it has taken it."""
        self._is_told = False
        changes = self._roster.restart(self._owner.everyone())
        records = changes.records
        starts = range(0, max(1, len(records)), _PART)
        for start in starts:
            part = self._update(
                Changes(records[start : start + _PART]),
                is_snapshot=start == 0,
                is_partial=start != starts[-1],
            )
            if part.is_partial:
                self._post(peer, part)
                await peer.wait_drained()
            else:
                await peer.call(*unparse_operation(part))
        self._is_told = True
        self._wake.set()

    async def _check(self, peer: Peer) -> None:
        """Compare the supervisor's picture with ours at intervals; mend differences."""
        while True:
            await trio.sleep(CHECK_INTERVAL)
            try:
                await self._check_once(peer)
            except SupervisorError as exc:
                logger.debug(
                    "comparison with the supervisor's status table failed: %s", exc
                )
                peer.close()

    async def _check_once(self, peer: Peer) -> None:
        update = self._update(self._roster.audit(self._owner.everyone()))
        update = evolve(update, digest=self._roster.digest())
        expected = len(self._roster.told)
        fields = await peer.call(*unparse_operation(update))
        report = parse_result(fields, UpdateReport)
        if report.is_same:
            self._was_different = False
            return
        await self._send_snapshot(peer)
        if not self._was_different:  # log a lasting difference only once
            self._owner.on_event(
                SupervisorResynchronized(
                    name="supervisor", workers=expected, known=report.workers
                )
            )
        self._was_different = True

    def _record_of(self, child: Child) -> WorkerRecord:
        return record_of(child, counts=self._owner.counts(child))

    def _post(self, peer: Peer, update: Update) -> None:
        peer.post(*unparse_operation(update))

    def _update(
        self,
        changes: Changes,
        *,
        is_last: bool = False,
        is_snapshot: bool = False,
        is_partial: bool = False,
    ) -> Update:
        self._sequence = 1 if is_snapshot else self._sequence + 1
        return Update(
            workers=tuple(changes.records),
            gone=tuple(changes.gone),
            restarts=self._owner.supervisor.restarts,
            is_last=is_last,
            sequence=self._sequence,
            is_snapshot=is_snapshot,
            is_partial=is_partial,
        )
