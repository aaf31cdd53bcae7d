"""Keep, take or stop the standby of a fork server. The controller's side."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.process.child import ChildProcess
from trio_supervisor.process.cleanup.stopping import StopPlan, stop
from trio_supervisor.tasks import ProtectedNursery

_STOP: Final = StopPlan(timeout=1.0)
# Delay before another standby is requested for one that could not be received [s].
_RETRY: Final = 5.0


@define(eq=False)
class StandbyServer:
    """A copy of a fork server, with the same memory, that waits to take over."""

    process: ChildProcess
    _control: socket.socket
    _watch: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    is_taken: bool = field(default=False, init=False)

    async def wait_lost(self) -> bool:
        """Wait until it exits (True) or is taken; a cancellation stops it."""
        try:
            with self._watch:
                await self.process.wait()
        finally:
            if not self.is_taken:
                self._control.close()  # end-of-file makes it exit
                with trio.CancelScope(shield=True):
                    await stop(self.process, _STOP)
                self.process.close()
        return not self.is_taken

    def dismiss(self) -> None:
        """Stop it: a newer standby replaces it."""
        self._watch.cancel()

    def take(self) -> tuple[ChildProcess, socket.socket]:
        """Return its process and its control socket, which the caller owns from now."""
        self.is_taken = True
        self._watch.cancel()
        return self.process, self._control


@define(eq=False)
class StandbyKeeper:
    """The current standby of a fork server, if there is one."""

    _nursery: ProtectedNursery
    _request: Callable[[], Awaitable[None]]
    """Requests another standby from the fork server."""
    _current: StandbyServer | None = field(default=None, init=False)

    @property
    def process_id(self) -> int | None:
        """Of the standby; None: no standby."""
        return None if self._current is None else self._current.process.pid

    def adopt(self, process_id: int, control: int) -> None:
        """Keep a new standby; stop the one before."""
        ours = socket.socket(fileno=control)
        ours.setblocking(False)
        standby = StandbyServer(ChildProcess(process_id), ours)
        self._current, before = standby, self._current
        if before is not None:
            before.dismiss()
        self._nursery.start_soon(self._watch, standby)

    def take(self) -> tuple[ChildProcess, socket.socket] | None:
        """Return process and control socket of the standby; None: no standby."""
        standby, self._current = self._current, None
        return None if standby is None else standby.take()

    def request_later(self) -> None:
        """Request another standby later: the last one could not be received."""
        self._nursery.start_soon(self._request_after_pause)

    async def _request_after_pause(self) -> None:
        await trio.sleep(_RETRY)
        if self._current is None:
            await self._request()

    async def _watch(self, standby: StandbyServer) -> None:
        is_lost = await standby.wait_lost()
        if is_lost and self._current is standby:
            self._current = None
            await self._request()
