"""Pass bytes on as a child writes them, to those that are attached to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import trio
from attrs import define, field, frozen

_QUEUED: Final = 256 * 1024
"""Size of the queue for a reader that does not read [bytes]."""
_PART: Final = 16 * 1024
"""Bytes that are passed on at once."""


@frozen
class ProcessChange:
    """A process of the child has started, or has exited."""

    process_id: int
    is_running: bool
    has_terminal: bool


@frozen(kw_only=True)
class Part:
    """What an attached reader gets next."""

    item: bytes | ProcessChange
    missed: int
    """Reads lost before it because the reader was too slow."""


@define(eq=False)
class Attachment:
    """What one child writes from now on, as an async iterator, for one reader.

    As a context manager, it ends with the block. The iterator ends when the hub closes,
    or forgets the child.
    """

    name: str
    generation: int
    """That of its processes: during a reload, another child may have the name."""
    _leave: Callable[[Attachment], None]
    _limit: int = _QUEUED
    _items: deque[bytes | ProcessChange] = field(factory=deque, init=False)
    _size: int = field(default=0, init=False)
    _missed: int = field(default=0, init=False)
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

    async def __anext__(self) -> Part:
        """Wait for what comes next. A cancellation loses nothing."""
        await trio.lowlevel.checkpoint()
        while not self._items:
            if self._is_closed:
                raise StopAsyncIteration
            await self._changed.park()
        return self._take()

    def offer(self, item: bytes | ProcessChange) -> None:
        """Queue *item*; never wait, drop the oldest bytes."""
        self._items.append(item)
        self._size += _size_of(item)
        while self._size > self._limit and (oldest := self._oldest_bytes()) is not None:
            self._size -= len(self._items[oldest])  # type: ignore[arg-type]
            del self._items[oldest]
            self._missed += 1
        self._changed.unpark_all()

    def close(self) -> None:
        """End the iterator, after what is queued."""
        self._is_closed = True
        self._changed.unpark_all()

    def _oldest_bytes(self) -> int | None:
        """Return the place of the first bytes; None: the last item alone is left."""
        for place in range(len(self._items) - 1):
            if isinstance(self._items[place], bytes):
                return place
        return None

    def _take(self) -> Part:
        missed, self._missed = self._missed, 0
        item = self._items.popleft()
        self._size -= _size_of(item)
        if isinstance(item, bytes) and len(item) > _PART:
            self._items.appendleft(item[_PART:])
            self._size += len(item) - _PART
            item = item[:_PART]
        return Part(item=item, missed=missed)


def _size_of(item: bytes | ProcessChange) -> int:
    return len(item) if isinstance(item, bytes) else 0
