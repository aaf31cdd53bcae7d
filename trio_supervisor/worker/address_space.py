"""Compute how much address space this process may still map (RLIMIT_AS)."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def room_in_address_space() -> Iterator[int]:
    """Yield how much more may be mapped [bytes]; nothing if unlimited.

    Source: setrlimit(2), RLIMIT_AS (``ulimit -v``); proc_pid_statm(5).
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        with suppress(OSError, ValueError), open("/proc/self/statm") as file:
            yield max(0, limit - int(file.read().split()[0]) * _PAGE)
