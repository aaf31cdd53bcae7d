"""Measure the CPU time of a thread, and how long it waited for a CPU."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from attrs import define, field

from trio_supervisor.diagnostics.stacks.frames import native_id


@define(eq=False)
class ThreadClock:
    """The CPU usage of one thread since its creation; any thread may read it.

    Args:
        ident: Ident of the thread, which must stay alive.
    """

    _ident: int
    _began: float = field(factory=time.monotonic, init=False)
    _clock: int | None = field(init=False)
    _native: int | None = field(init=False)
    _used: float = field(init=False)
    _queued: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        has_clock = hasattr(time, "pthread_getcpuclockid")
        self._clock = time.pthread_getcpuclockid(self._ident) if has_clock else None
        self._native = native_id(_thread(self._ident))
        self._used, self._queued = self._read_used(), self._read_queued()

    @property
    def cpu(self) -> float | None:
        """CPU time per second, from 0 to 1; None: not measured on this system."""
        if self._clock is None:
            return None
        passed = max(1e-9, time.monotonic() - self._began)
        return min(1.0, (self._read_used() - self._used) / passed)

    @property
    def queued(self) -> float:
        """How long the thread was runnable without getting a CPU [s]."""
        return self._read_queued() - self._queued

    def _read_used(self) -> float:
        return 0.0 if self._clock is None else time.clock_gettime(self._clock)

    def _read_queued(self) -> float:
        # Source: the kernel's sched-stats.rst; the second figure, in nanoseconds.
        path = f"/proc/self/task/{self._native}/schedstat"
        with suppress(OSError, ValueError, IndexError), open(path) as file:
            return int(file.read().split()[1]) / 1e9
        return 0.0


def _thread(ident: int) -> threading.Thread | None:
    return next((t for t in threading.enumerate() if t.ident == ident), None)
