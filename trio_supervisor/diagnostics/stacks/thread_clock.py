"""Read the CPU time of another thread, and whether it is runnable."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Final

# Source: MAKE_THREAD_CPUCLOCK in Linux's posix-timers.h. pthread_getcpuclockid() gives
# the same clock, but crashes if the thread has exited.
_PER_THREAD = 4
_SCHEDULED = 2
_STATUS_SIZE: Final = 512

# PyDLL keeps the GIL: otherwise a sampler of many threads would have to reacquire it
# after each call, while one of them computes.
_libc: Final = ctypes.PyDLL(None)


def thread_time(native_id: int | None) -> int | None:
    """Return the CPU time of a thread [ns]; None: it has exited, or not Linux."""
    if native_id is None or sys.platform != "linux":
        return None
    try:
        return time.clock_gettime_ns((~native_id << 3) | _PER_THREAD | _SCHEDULED)
    except OSError:
        return None


def is_runnable(native_id: int | None) -> bool:
    """Return whether a thread is running or runnable (state R).

    False if it has exited, and on systems other than Linux.
    """
    if native_id is None or sys.platform != "linux":
        return False
    file = _libc.open(
        b"/proc/self/task/%d/stat" % native_id, os.O_RDONLY | os.O_CLOEXEC
    )
    if file < 0:
        return False
    text = ctypes.create_string_buffer(_STATUS_SIZE)
    length = _libc.read(file, text, _STATUS_SIZE)
    _libc.close(file)
    # The state follows the name, which is in parentheses and may contain some.
    return text.raw[: max(0, length)].rpartition(b") ")[2].startswith(b"R")
