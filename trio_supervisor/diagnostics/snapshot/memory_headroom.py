"""Check that there is enough memory for a forked copy of this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from trio_supervisor.diagnostics.memory_usage import host_free_memory, read_memory
from trio_supervisor.errors import LowMemoryError

_RESERVE: Final = 32 * 1024 * 1024
"""Memory that is left to other processes [bytes]."""
_CGROUPS: Final = Path("/sys/fs/cgroup")


def require_memory() -> None:
    """Check that there is memory even if every page of a forked copy is written to.

    Raises:
        LowMemoryError: there may be too little.
    """
    memory = read_memory(os.getpid(), is_full=False)
    refuse_if_short(memory[0] if memory else 0, free_memory())


def refuse_if_short(resident: int, free: int) -> None:
    """Check that a copy of *resident* bytes leaves memory to other processes [bytes].

    Raises:
        LowMemoryError: it does not.
    """
    if free < resident + _RESERVE:
        raise LowMemoryError(
            f"a snapshot may need as much memory as this process "
            f"({resident >> 20} MiB), but only {free >> 20} MiB are free"
        )


def free_memory() -> int:
    """Return what this process can allocate: on the host, in its cgroups [bytes]."""
    return min([host_free_memory(), *_free_in_cgroups()])


def free_in_group(group: Path) -> int | None:
    """Return the memory left in one cgroup (version 2) [bytes]; None: no limit.

    Source: the kernel's cgroup-v2.rst. Inactive file cache is reclaimed on demand.
    """
    with suppress(OSError, ValueError):
        limit = int((group / "memory.max").read_text())  # or "max"
        used = int((group / "memory.current").read_text())
        stat = dict(map(str.split, (group / "memory.stat").read_text().splitlines()))
        return limit - used + int(stat.get("inactive_file", 0))
    return None


def _free_in_cgroups() -> Iterator[int]:
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            if line.startswith("0::/"):
                group = _CGROUPS / line[4:]
                for place in (group, *group.parents):
                    if (free := free_in_group(place)) is not None:
                        yield free
