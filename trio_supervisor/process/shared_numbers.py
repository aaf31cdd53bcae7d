"""Share numbers of a process with the controller, in memory that outlives the process.

Each process has memory of its own, which it alone writes. An aligned store of eight
bytes is never seen half done, so there are no locks and no calls. The controller reads
by pread(2): no mapping of it can fault.
"""

from __future__ import annotations

import mmap
import os
from array import array
from typing import Final, Protocol, Self, cast

from attrs import define, field

from trio_supervisor.process.shared_memory import open_shared_memory

_WIDTH: Final = 8


class Numbers(Protocol):
    """The numbers of a process, by place."""

    def __getitem__(self, place: int, /) -> float: ...
    def __setitem__(self, place: int, value: float, /) -> None: ...


@define(eq=False)
class SharedNumbers:
    """The controller's end; made by `open_numbers`. A context manager."""

    descriptor: int
    """For the process to inherit."""
    _count: int
    _is_closed: bool = field(default=False, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> array[float]:
        """Return the numbers."""
        numbers = array("d")
        if not self._is_closed:
            numbers.frombytes(os.pread(self.descriptor, self._count * _WIDTH, 0))
        return numbers

    def close(self) -> None:
        """Close the descriptor. May be called again."""
        if not self._is_closed:
            self._is_closed = True
            os.close(self.descriptor)


def open_numbers(count: int) -> SharedNumbers:
    """Return memory for *count* numbers, all 0.

    Raises:
        OSError: the system has no memory or no descriptor for it.
    """
    return SharedNumbers(open_shared_memory("metrics", count * _WIDTH), count)


def use_numbers(descriptor: int, count: int) -> Numbers:
    """In the process: return the numbers, to write; *descriptor* is closed."""
    try:
        size = count * _WIDTH
        memory = mmap.mmap(descriptor, size, mmap.MAP_SHARED)
        return cast(Numbers, memoryview(memory).cast("d"))
    finally:
        os.close(descriptor)


def local_numbers(count: int) -> Numbers:
    """Return *count* numbers that no other process sees."""
    return array("d", bytes(count * _WIDTH))
