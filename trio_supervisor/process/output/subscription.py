"""Stream new lines to a reader, dropping old ones if it is too slow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from types import TracebackType
from typing import Final, Self

import trio
from attrs import define, field, frozen

from trio_supervisor.process.output.blocks import Block, count_lines, pieces_of
from trio_supervisor.process.output.entries import Entry, entry_of

_QUEUED: Final = 1024 * 1024
"""Size of the queue for a reader that does not read [bytes]."""
_BATCH: Final = 200
"""Lines that are converted to entries within half a millisecond."""


@frozen(kw_only=True)
class Batch:
    """New lines since the last batch, at most a few hundred."""

    missed: int
    """Lines lost before these because the reader was too slow."""
    entries: tuple[Entry, ...]


@define(eq=False)
class Subscription:
    """New lines of some children, as an async iterator of `Batch`, for one reader.

    As a context manager, it ends with the block. The iterator ends when the hub closes.
    """

    _names: Collection[str] | None
    _leave: Callable[[Subscription], None]
    _limit: int = _QUEUED
    _blocks: deque[Block] = field(factory=deque, init=False)
    _size: int = field(default=0, init=False)
    _missed: int = field(default=0, init=False)
    _entries: Iterator[Entry] = field(factory=lambda: iter(()), init=False)
    """Remaining entries of the block that is being read."""
    _is_closed: bool = field(default=False, init=False)
    _changed: trio.lowlevel.ParkingLot = field(
        factory=trio.lowlevel.ParkingLot, init=False
    )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(self)
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """Wait for lines. A cancellation loses none."""
        await trio.lowlevel.checkpoint()
        while not (batch := self._take()).entries:
            if self._is_closed:
                raise StopAsyncIteration
            await self._changed.park()
        return batch

    def offer(self, block: Block) -> None:
        """Queue *block*, if its child is subscribed; never wait, drop the oldest."""
        if self._names is not None and block.origin.name not in self._names:
            return
        self._blocks.append(block)
        self._size += len(block.data)
        while self._size > self._limit and len(self._blocks) > 1:
            oldest = self._blocks.popleft()
            self._size -= len(oldest.data)
            self._missed += count_lines(oldest.data)
        self._changed.unpark_all()

    def close(self) -> None:
        """End the iterator, after the lines that are queued."""
        self._is_closed = True
        self._changed.unpark_all()

    def _take(self) -> Batch:
        entries: list[Entry] = []
        missed = 0
        while len(entries) < _BATCH:
            if (entry := next(self._entries, None)) is not None:
                entries.append(entry)
                continue
            if not self._blocks or (self._missed and entries):
                break
            missed, self._missed = missed + self._missed, 0
            block = self._blocks.popleft()
            self._size -= len(block.data)
            self._entries = (entry_of(block, piece) for piece in pieces_of(block))
        return Batch(missed=missed, entries=tuple(entries))
