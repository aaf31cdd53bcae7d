"""The clock of all measurements: loads nothing, for processes that must stay small."""

from __future__ import annotations

import time


def now() -> float:
    """Return the moment, the same in all processes [ms]."""
    return time.monotonic_ns() / 1e6
