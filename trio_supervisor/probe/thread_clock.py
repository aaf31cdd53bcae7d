"""How much processor time another thread of this process has used."""

from __future__ import annotations

import sys
import time

# Source: MAKE_THREAD_CPUCLOCK in Linux's posix-timers.h, the way that glibc makes the
# same of a pthread_t; but that crashes where the thread is gone, and this does not.
_PER_THREAD = 4
_SCHEDULED = 2


def thread_time(native_id: int | None) -> int | None:
    """Return the processor time of a thread [ns]; None: gone, or not Linux."""
    if native_id is None or sys.platform != "linux":
        return None
    try:
        return time.clock_gettime_ns((~native_id << 3) | _PER_THREAD | _SCHEDULED)
    except OSError:
        return None
