"""Stay registered with the supervisor, across restarts of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import trio
from attrs import define, field

from trio_supervisor.errors import DeadlineExceededError, SupervisorError
from trio_supervisor.link.connect import connect_unix
from trio_supervisor.link.peer import Dispatch, open_peer
from trio_supervisor.link.reconnect import ReconnectPlan, keep_connected
from trio_supervisor.wire.session import Session
from trio_supervisor.worker.refusals import Refusals

_REGISTER_TIMEOUT: Final = 10.0


def ignore(_: str | None) -> None:
    """Ignore a change of the registration."""


@define(eq=False)
class Registration:
    """The registration of this process with the supervisor at a socket.

    Args:
        socket_path: The supervisor's socket.
        name: Name of the worker in the log.
        read_state: Returns the state to register with.
        dispatch: Answers the supervisor's calls.
        on_change: Called with the connection id, and with None when that ends.
        rng: Spreads reconnecting workers over time.
    """

    _socket_path: str
    _name: str
    _read_state: Callable[[], Mapping[str, Any]]
    _dispatch: Dispatch
    _on_change: Callable[[str | None], None] = ignore
    _rng: random.Random = field(factory=random.Random)
    _refusals: Refusals = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._refusals = Refusals(self._name)

    async def run(self) -> NoReturn:
        """Connect, register, answer calls and reconnect, until cancelled."""
        await keep_connected(
            self._connect,
            self._session,
            ReconnectPlan(),
            self._rng,
        )

    async def _connect(self) -> trio.abc.Stream:
        try:
            return await connect_unix(self._socket_path)
        except PermissionError as exc:  # after a setuid(), for example
            self._refusals.not_permitted(self._socket_path, exc)
            raise

    async def _session(self, stream: trio.abc.Stream) -> bool:
        session = Session(is_connecting=True)
        async with open_peer(stream, session, self._dispatch) as peer:
            try:
                with trio.fail_after(_REGISTER_TIMEOUT):
                    answer = await peer.call(
                        "register", {"state": dict(self._read_state())}
                    )
            except trio.TooSlowError:
                raise DeadlineExceededError(
                    f"no answer to register within {_REGISTER_TIMEOUT:g} s"
                ) from None
            except SupervisorError as exc:
                self._refusals.refused(exc)
                raise
            self._on_change(str(answer.get("connection_id", "")))
            try:
                await peer.closed.wait()
            finally:
                self._on_change(None)
        return True
