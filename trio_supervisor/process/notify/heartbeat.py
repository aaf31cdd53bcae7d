"""A process's last heartbeat, in a page of memory that it shares with the controller.

A heartbeat is one store of a timestamp: no queue that others could fill, and nobody who
has to read it in time. The controller looks when it judges. Each process has a page of
its own, so that none can write another's.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Self

from attrs import define, field

_SIZE: Final = mmap.PAGESIZE
_BEAT: Final = 0
_HELD: Final = 1
_SINCE: Final = 2
"""Words of the page: the last heartbeat, for how long looks of ours have held the
process up in all, and since when one does so now; 0: none does [ns]."""
_MOST_HELD: Final = 30 * 10**9
"""A process that is held up for longer between two heartbeats is silent [ns]."""
_FAILED: Final = ctypes.c_void_p(-1).value


def _now() -> int:
    # Like trio's clock it stands still while the host is suspended, and it is the same
    # for all processes.
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


@define(eq=False)
class HeartbeatReader:
    """The controller's end; made by `open_heartbeat`. A context manager."""

    descriptor: int | None
    """What the process inherits; None: it has it."""
    _address: int | None
    _last: int = field(default=0, init=False)
    _looked: int = field(default=0, init=False)
    _beat: int | None = field(default=None, init=False)
    _held_before: int = field(default=0, init=False)
    """What *held* was at the last heartbeat."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close_descriptor(self) -> None:
        """Close the descriptor: the process has its own. The memory stays."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def age(self) -> float | None:
        """Return how long ago the last heartbeat was [s]; None: there was none.

        The time in which a look of ours held the process up is left out of it.

        A value that cannot be a time between this look and the one before (the process
        has a clock of its own, or writes what it likes) counts as a heartbeat now.
        """
        if self._address is None:
            return None
        value, held, since = (ctypes.c_uint64 * 3).from_address(self._address)
        now = _now()
        if 0 < since < now:
            held += now - since
        if value != self._last:
            self._last, self._held_before = value, held
            self._beat = value if self._looked <= value <= now else now
        self._looked = now
        if self._beat is None:
            return None
        left_out = min(max(0, held - self._held_before), _MOST_HELD)
        return max(0, now - self._beat - left_out) / 1e9

    def close(self) -> None:
        """Give everything back. May be called again."""
        self.close_descriptor()
        if self._address is not None:
            _libc().munmap(self._address, _SIZE)
            self._address = None


@define(eq=False)
class HeartbeatWriter:
    """The end in the process itself; made by `use_heartbeat`."""

    _memory: mmap.mmap
    _slot: memoryview = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._slot = memoryview(self._memory).cast("Q")

    def beat(self) -> None:
        """Give a heartbeat: one aligned store of 8 bytes, which never waits."""
        self._slot[_BEAT] = _now()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Say for the length of the block that a look of ours holds the process up.

        One thread alone may do so.
        """
        began = self._slot[_SINCE] = _now()
        try:
            yield
        finally:
            held = self._slot[_HELD] + _now() - began
            # In this order: read in between, it counts twice, and not at all otherwise.
            self._slot[_HELD] = held
            self._slot[_SINCE] = 0

    def close(self) -> None:
        """Unmap the page. May be called again."""
        self._slot.release()
        self._memory.close()


def open_heartbeat() -> HeartbeatReader:
    """Return a new page without a heartbeat.

    Raises:
        OSError: the system has no memory or no descriptor for it.
    """
    descriptor = _open_page()
    try:
        address = _libc().mmap(
            None, _SIZE, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0
        )
        if address == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    except BaseException:
        os.close(descriptor)
        raise
    return HeartbeatReader(descriptor, address)


def use_heartbeat(descriptor: int) -> HeartbeatWriter:
    """In the process: return what beats there. *descriptor* is closed."""
    try:
        return HeartbeatWriter(mmap.mmap(descriptor, _SIZE, mmap.MAP_SHARED))
    finally:
        os.close(descriptor)


def _open_page() -> int:
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.truncate(_SIZE)
            return os.dup(file.fileno())
    descriptor = os.memfd_create(
        "trio_supervisor heartbeat", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    )
    try:
        # Written, not only grown: where there is no memory, that is known here.
        os.write(descriptor, bytes(_SIZE))
        # A process that truncates it would have the controller die by SIGBUS.
        with suppress(AttributeError):
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _libc() -> ctypes.CDLL:
    """Return the C library, by which memory is mapped without keeping a descriptor.

    Python's own mmap keeps one until 3.13 (``trackfd``).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    ]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc
