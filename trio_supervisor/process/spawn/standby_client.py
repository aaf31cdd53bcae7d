"""The controller's side of a fork server's twin: keep it, take it, or end it."""

from __future__ import annotations

import socket
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.process.child import ChildProcess
from trio_supervisor.process.cleanup.stopping import StopPlan, stop

_STOP: Final = StopPlan(timeout=1.0)


@define(eq=False)
class StandbyServer:
    """A twin that has the memory of a fork server, and waits to take over."""

    process: ChildProcess
    _control: socket.socket
    _watch: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    is_taken: bool = field(default=False, init=False)

    async def wait_lost(self) -> bool:
        """Wait until it ended (True) or was taken; a cancellation ends it."""
        try:
            with self._watch:
                await self.process.wait()
        finally:
            if not self.is_taken:
                self._control.close()  # it ends by that
                with trio.CancelScope(shield=True):
                    await stop(self.process, _STOP)
                self.process.close()
        return not self.is_taken

    def dismiss(self) -> None:
        """Have it end: another one takes its place."""
        self._watch.cancel()

    def take(self) -> tuple[ChildProcess, socket.socket]:
        """Return its process and its control socket, which are the caller's now."""
        self.is_taken = True
        self._watch.cancel()
        return self.process, self._control
