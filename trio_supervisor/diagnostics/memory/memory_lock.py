"""Let one memory sample, memory dump or examination run at a time."""

from __future__ import annotations

import threading
from typing import Final

from attrs import define, field

from trio_supervisor.errors import BusyError

# A sample changes the settings of the garbage collector, which belong to the process.
_lock: Final = threading.Lock()
_holders: Final[list[str]] = []


@define(eq=False)
class MemoryLock:
    """The right to inspect the heap, until `release`; made by `acquire_memory_lock`."""

    _is_released: bool = field(default=False, init=False)

    def release(self) -> None:
        """Let another sample or dump begin. Calling it twice is harmless."""
        if not self._is_released:
            self._is_released = True
            _holders.clear()
            _lock.release()


def acquire_memory_lock(name: str) -> MemoryLock:
    """Return the lock for the operation *name*, without waiting for it.

    Raises:
        BusyError: a memory sample or dump of this process is running.
    """
    if not _lock.acquire(blocking=False):
        running = ", ".join(_holders) or "memory sample or dump"
        raise BusyError(f"a {running} of this process is already running; try later")
    _holders.append(name)
    return MemoryLock()
