"""Share numbers of a process with the controller, in memory that outlives the process.

Each process has memory of its own, which it alone writes. An aligned store of eight
bytes is never seen half done, so there are no locks and no calls. The controller reads
by pread(2): no mapping of it can fault.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from array import array
from contextlib import suppress
from typing import Final, Protocol, Self, cast

from attrs import define, field

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
    size = count * _WIDTH
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return SharedNumbers(os.dup(file.fileno()), count)
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    descriptor = os.memfd_create("trio_supervisor metrics", flags)
    try:
        # Written, not only extended, so that a lack of memory is an error here.
        os.write(descriptor, bytes(size))
        with suppress(AttributeError):
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return SharedNumbers(descriptor, count)


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
