"""Read the clock of all measurements, without imports that would enlarge a process."""

from __future__ import annotations

import time


def now() -> float:
    """Return the current time on a clock that all processes share [ms]."""
    return time.monotonic_ns() / 1e6
