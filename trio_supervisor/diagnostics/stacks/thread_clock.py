"""How much processor time another thread of this process has used, or waits for."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Final

# Source: MAKE_THREAD_CPUCLOCK in Linux's posix-timers.h, the way that glibc makes the
# same of a pthread_t; but that crashes where the thread is gone, and this does not.
_PER_THREAD = 4
_SCHEDULED = 2
_STATUS_SIZE: Final = 512

# Keeps the interpreter's lock: who looks at many threads would else wait for it again
# and again, where one of them computes.
_libc: Final = ctypes.PyDLL(None)


def thread_time(native_id: int | None) -> int | None:
    """Return the processor time of a thread [ns]; None: gone, or not Linux."""
    if native_id is None or sys.platform != "linux":
        return None
    try:
        return time.clock_gettime_ns((~native_id << 3) | _PER_THREAD | _SCHEDULED)
    except OSError:
        return None


def is_runnable(native_id: int | None) -> bool:
    """Return whether a thread is on a processor, or would be if one were free.

    False, too, where it is gone, and where the system is not Linux.
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
    # The name stands before it, in parentheses, and may have some of its own.
    return text.raw[: max(0, length)].rpartition(b") ")[2].startswith(b"R")
