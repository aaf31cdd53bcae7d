"""Events and log lines as async iterators."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Self, TypeAlias

import trio
from attrs import define, field, frozen

from trio_supervisor.errors import RemoteProtocolError
from trio_supervisor.wire.json_tree import Object

Entry: TypeAlias = Mapping[str, Any]
"""One event or one line of output, with the fields that `--json` prints."""

MAX_QUEUED: Final = 10_000
"""Entries that are kept for a reader that is slower than they come."""


@frozen(kw_only=True)
class EntryBatch:
    """Entries that came together."""

    entries: Sequence[Entry]
    missed: int = 0
    """How many entries were lost before these: the reader was too slow."""


@define(eq=False)
class Entries:
    """Entries, one after the other, as an async iterator for one reader.

    A cancellation of the wait for the next entry loses none.
    """

    _receive: Callable[[], Awaitable[EntryBatch | None]]
    """Waits for the next batch; None: there is no more."""
    missed: int = field(default=0, init=False)
    """How many entries were lost so far because this reader was too slow."""
    _batch: deque[Entry] = field(factory=deque, init=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Entry:
        await trio.lowlevel.checkpoint()
        while not self._batch:
            batch = await self._receive()
            if batch is None:
                raise StopAsyncIteration
            self.missed += batch.missed
            self._batch.extend(batch.entries)
        return self._batch.popleft()


@define(eq=False)
class EntryQueue:
    """Entries that arrive as intermediate answers of a call. The oldest give way."""

    _entries: deque[Entry] = field(factory=deque, init=False)
    _missed: int = field(default=0, init=False)
    _is_closed: bool = field(default=False, init=False)
    _error: Exception | None = field(default=None, init=False)
    _changed: trio.lowlevel.ParkingLot = field(
        factory=trio.lowlevel.ParkingLot, init=False
    )

    def put(self, answer: Object) -> None:
        """Take in the ``entries`` and ``missed`` of *answer*. Never waits.

        Raises:
            RemoteProtocolError: they have other types.
        """
        missed, entries = answer.get("missed", 0), answer.get("entries", [])
        if type(missed) is not int or not isinstance(entries, list):
            raise RemoteProtocolError(
                "expected a list of entries and a count of missed"
            )
        self._missed += missed
        self._entries.extend(entries)
        while len(self._entries) > MAX_QUEUED:
            self._entries.popleft()
            self._missed += 1
        self._changed.unpark_all()

    def close(self, error: Exception | None = None) -> None:
        """End the iteration, with *error* if given, once all entries are read."""
        self._is_closed = True
        self._error = error
        self._changed.unpark_all()

    async def receive(self) -> EntryBatch | None:
        """Wait for entries; return None once there are no more.

        Raises:
            SupervisorError: what the call failed with.
        """
        while not self._entries:
            if self._error is not None:
                raise self._error
            if self._is_closed:
                return None
            await self._changed.park()
        batch = EntryBatch(entries=tuple(self._entries), missed=self._missed)
        self._entries.clear()
        self._missed = 0
        return batch
