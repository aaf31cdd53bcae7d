"""Share the time of a process's last heartbeat with the controller, in a memory page.

A heartbeat is one store of a timestamp: there is no queue that other processes could
fill or that the controller would have to read in time. Each process has its own page,
so that none can write that of another.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

from attrs import define, field

from trio_supervisor.process.shared_memory import open_shared_memory

_SIZE: Final = mmap.PAGESIZE
_BEAT: Final = 0
_HELD: Final = 1
_SINCE: Final = 2
_DUE: Final = 3
_LAG: Final = 4
"""Words of the page [ns]: time of the last heartbeat; total time for which diagnostics
have paused the process; start of the current pause (0: not paused); when an event loop
is to beat next (0: there is none), and how late it was with its last heartbeat."""
_MAX_LAG: Final = 86_400 * 10**9
"""More is no lag of a loop, but an arbitrary value [ns]."""
_MAX_PAUSE: Final = 30 * 10**9
"""Longest pause that is subtracted between two heartbeats [ns]."""
_FAILED: Final = ctypes.c_void_p(-1).value


def _now() -> int:
    # Like trio's clock, it does not advance while the host is suspended, and is the
    # same for all processes.
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


@define(eq=False)
class HeartbeatReader:
    """The controller's end; made by `open_heartbeat`. A context manager."""

    descriptor: int | None
    """Descriptor for the process; None: it was inherited and closed here."""
    _address: int | None
    _last: int = field(default=0, init=False)
    _read_at: int = field(default=0, init=False)
    _beat: int | None = field(default=None, init=False)
    _paused_before: int = field(default=0, init=False)
    """Total pause at the last heartbeat."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close_descriptor(self) -> None:
        """Close the descriptor: the process has its own. The memory stays mapped."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def age(self) -> float | None:
        """Return the time since the last heartbeat [s]; None: there was none.

        Time in which diagnostics paused the process is not counted.

        A value that cannot be a time since the previous call (the process has another
        clock, or writes arbitrary values) counts as a heartbeat now.
        """
        if self._address is None:
            return None
        value, paused, since = (ctypes.c_uint64 * 3).from_address(self._address)
        now = _now()
        if 0 < since < now:
            paused += now - since
        if value != self._last:
            self._last, self._paused_before = value, paused
            self._beat = value if self._read_at <= value <= now else now
        self._read_at = now
        if self._beat is None:
            return None
        excluded = min(max(0, paused - self._paused_before), _MAX_PAUSE)
        return max(0, now - self._beat - excluded) / 1e9

    def lag(self) -> float | None:
        """Return how late the event loop is, or was with its last heartbeat [s].

        None: no event loop gives heartbeats.
        """
        if self._address is None:
            return None
        words = (ctypes.c_uint64 * 5).from_address(self._address)
        if not words[_DUE]:
            return None
        lag = max(words[_LAG], _now() - words[_DUE])
        return lag / 1e9 if lag <= _MAX_LAG else None

    def close(self) -> None:
        """Close the descriptor and unmap the page. May be called again."""
        self.close_descriptor()
        if self._address is not None:
            _libc().munmap(self._address, _SIZE)
            self._address = None


@define(eq=False)
class HeartbeatWriter:
    """The end in the process; made by `use_heartbeat`."""

    _memory: mmap.mmap
    _slot: memoryview = field(init=False)
    _held_before: int = field(default=0, init=False)
    """Total pause at the last heartbeat of an event loop."""

    def __attrs_post_init__(self) -> None:
        self._slot = memoryview(self._memory).cast("Q")

    def beat(self) -> None:
        """Store a heartbeat: one aligned store of 8 bytes, which never waits."""
        self._slot[_BEAT] = _now()

    def beat_every(self, interval: float) -> None:
        """Store a heartbeat of an event loop that gives one each *interval* [s].

        Also stores how late the loop is, without the time of pauses by diagnostics.
        """
        now, held = _now(), self._slot[_HELD]
        if due := self._slot[_DUE]:
            paused = held - self._held_before
            self._slot[_LAG] = max(0, now - due - paused)
        self._held_before = held
        self._slot[_DUE] = now + round(interval * 1e9)
        self._slot[_BEAT] = now

    @contextmanager
    def held(self) -> Iterator[None]:
        """Mark the process as paused by diagnostics within the block.

        Only one thread at a time may do so.
        """
        began = self._slot[_SINCE] = _now()
        try:
            yield
        finally:
            held = self._slot[_HELD] + _now() - began
            # In this order: a reader in between counts the pause twice; in the other
            # order, it would not count it.
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
    descriptor = open_shared_memory("heartbeat", _SIZE)
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
    """In the process: return the writer for *descriptor*, which is closed."""
    try:
        return HeartbeatWriter(mmap.mmap(descriptor, _SIZE, mmap.MAP_SHARED))
    finally:
        os.close(descriptor)


def _libc() -> ctypes.CDLL:
    """Return the C library, whose mmap keeps no descriptor open.

    Python's mmap keeps a copy of the descriptor before 3.13 (``trackfd``).
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
