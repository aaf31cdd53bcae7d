"""Pass a stream of intermediate answers on to a caller that may read slowly."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.errors import ConnectionLostError
from trio_supervisor.link.peer import IncomingCall
from trio_supervisor.wire.json_tree import Object

# Intermediate answers queued for a slow reader; each holds some hundred entries.
_QUEUED: Final = 64


@define(eq=False)
class Relay:
    """A bounded queue for one reader, which drops the oldest answers when it is full.

    ``missed`` in the next answer is the number of entries that were dropped.
    """

    _call: IncomingCall
    _queue: deque[Object] = field(factory=deque, init=False)
    _missed: int = field(default=0, init=False)
    _is_idle: bool = field(default=False, init=False)
    _changed: trio.lowlevel.ParkingLot = field(
        factory=trio.lowlevel.ParkingLot, init=False
    )

    def offer(self, fields: Object) -> None:
        """Queue an intermediate answer. Never waits."""
        if len(self._queue) >= _QUEUED:
            lost = self._queue.popleft()
            self._missed += len(lost.get("entries", ())) + lost.get("missed", 0)
        self._queue.append(fields)
        self._changed.unpark_all()

    async def run(self) -> None:
        """Send what is queued until cancelled."""
        while True:
            while self._queue:
                fields = self._queue.popleft()
                missed, self._missed = self._missed, 0
                if missed:
                    fields = {**fields, "missed": fields.get("missed", 0) + missed}
                with suppress(ConnectionLostError):  # which cancels the call
                    await self._call.stream(fields)
            self._is_idle = True
            self._changed.unpark_all()
            await self._changed.park()
            self._is_idle = False

    async def finish(self) -> None:
        """Wait until everything that is queued has been sent."""
        while self._queue or not self._is_idle:
            await self._changed.park()
