"""A bounded queue of lines to be written, which drops the oldest when it is full."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import define, field

from trio_supervisor.process.output.blocks import Data, count_lines

# Small enough that a destination of 3 MB/s makes progress within `send_timeout`.
_BATCH_SIZE: Final = 256 * 1024
# IOV_MAX of writev(2).
_BATCH_COUNT: Final = 1000


@define(eq=False)
class WriteQueue:
    """Items that wait to be written, and counters of those written or dropped.

    Not synchronised: the caller holds a lock.
    """

    _limit: int
    """Largest size [bytes]."""
    _notice: Callable[[int], bytes]
    """Returns a line that reports how many lines were dropped."""
    _count: Callable[[Data], int] = count_lines
    """Returns the number of lines in an item."""
    size: int = field(default=0, init=False)
    """Size of the waiting items and of those being written [bytes]."""
    accepted: int = field(default=0, init=False)
    """Number of items added so far."""
    settled: int = field(default=0, init=False)
    """Number of added items that are written or dropped."""
    lost: int = field(default=0, init=False)
    """Number of lines dropped so far."""
    _items: deque[Data] = field(factory=deque, init=False)
    _unreported: int = field(default=0, init=False)
    """Dropped lines that no notice has reported yet."""
    _is_overflowing: bool = field(default=False, init=False)
    """Set from the first drop until half of the queue is written."""
    _is_at_line_start: bool = field(default=True, init=False)

    def __bool__(self) -> bool:
        return bool(self._items)

    def has_room(self, size: int) -> bool:
        """Return whether adding *size* bytes need not wait."""
        return self.size + size <= self._limit or not self.size or self._is_overflowing

    def add(self, data: Data) -> None:
        """Add *data*; drop the oldest items if the queue is full."""
        while self._items and self.size + len(data) > self._limit:
            self.drop(self._items.popleft())
            self._is_overflowing = True
        self._items.append(data)
        self.size += len(data)
        self.accepted += 1

    def drop(self, item: Data) -> None:
        """Count *item*, which is no longer in the queue, as dropped."""
        lines = self._count(item)
        self._unreported += lines
        self.lost += lines
        self.size -= len(item)
        self.settled += 1

    def take_batch(self) -> list[Data]:
        """Return the next items to write, with a notice of dropped lines if needed."""
        batch: list[Data] = []
        size = 0
        while self._items and size < _BATCH_SIZE and len(batch) < _BATCH_COUNT:
            batch.append(self._items.popleft())
            size += len(batch[-1])
        if self._unreported:
            self._add_notice(batch)
        return batch

    def _add_notice(self, batch: list[Data]) -> None:
        notice = self._notice(self._unreported)
        if not self._is_at_line_start:
            notice = b"\n" + notice
        batch.insert(0, notice)
        self.size += len(notice)
        self.settled -= 1  # the notice will be settled, but was never accepted
        self._unreported = 0

    def settle(self, batch: list[Data], written: int) -> None:
        """Remove from *batch* the first *written* bytes."""
        done = 0
        rest = written
        while done < len(batch) and rest >= len(batch[done]):
            rest -= len(batch[done])
            done += 1
        last = batch[done] if rest else batch[done - 1]
        self._is_at_line_start = last[rest - 1] == 0x0A
        self.size -= written
        self.settled += done
        if 2 * self.size <= self._limit:
            self._is_overflowing = False
        del batch[:done]
        if rest:
            batch[0] = memoryview(batch[0])[rest:]

    def clear(self) -> None:
        """Forget all items: they belong to the parent process."""
        self._items.clear()
        self.size = self._unreported = 0
        self.settled = self.accepted
        self._is_overflowing = False
