"""Passing on a stream of intermediate answers to a caller that may be slow."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.errors import ConnectionLostError
from trio_supervisor.link.peer import IncomingCall
from trio_supervisor.wire.json_tree import Object

# Intermediate answers that wait for a slow reader; each holds some hundred entries.
_QUEUED: Final = 64


@define(eq=False)
class Relay:
    """Between a stream and its one reader, who loses the oldest if it is too slow.

    How many entries it lost is said in ``missed`` of the next answer that it gets.
    """

    _call: IncomingCall
    _queue: deque[Object] = field(factory=deque, init=False)
    _missed: int = field(default=0, init=False)
    _is_idle: bool = field(default=False, init=False)
    _news: trio.Event = field(factory=trio.Event, init=False)

    def offer(self, fields: Object) -> None:
        """Take in an intermediate answer. Never waits."""
        if len(self._queue) >= _QUEUED:
            lost = self._queue.popleft()
            self._missed += len(lost.get("entries", ())) + lost.get("missed", 0)
        self._queue.append(fields)
        self._tell()

    async def run(self) -> None:
        """Send what comes until cancelled."""
        while True:
            while self._queue:
                fields = self._queue.popleft()
                missed, self._missed = self._missed, 0
                if missed:
                    fields = {**fields, "missed": fields.get("missed", 0) + missed}
                with suppress(ConnectionLostError):  # then the call is cancelled, too
                    await self._call.stream(fields)
            self._is_idle = True
            self._tell()
            await self._wait()
            self._is_idle = False

    async def finish(self) -> None:
        """Wait until all that came was sent."""
        while self._queue or not self._is_idle:
            await self._wait()

    async def _wait(self) -> None:
        if self._news.is_set():
            self._news = trio.Event()
        await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
