"""How much memory there is for a copy of this process, at the worst."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from trio_supervisor.diagnostics.memory_usage import host_free_memory, read_memory
from trio_supervisor.errors import LowMemoryError

_RESERVE: Final = 32 * 1024 * 1024
"""What is left to everybody else [bytes]."""
_CGROUPS: Final = Path("/sys/fs/cgroup")


def require_memory() -> None:
    """Check that a forked copy of this process may come to differ in all of its pages.

    Raises:
        LowMemoryError: that could need more than there is.
    """
    memory = read_memory(os.getpid(), is_full=False)
    refuse_if_short(memory[0] if memory else 0, free_memory())


def refuse_if_short(resident: int, free: int) -> None:
    """Check that a copy of so much memory leaves something to everybody else [bytes].

    Raises:
        LowMemoryError: it does not.
    """
    if free < resident + _RESERVE:
        raise LowMemoryError(
            f"a snapshot may need as much memory as this process has, that is "
            f"{resident >> 20} MiB, and only {free >> 20} MiB are free"
        )


def free_memory() -> int:
    """Return what this process can get: of the host, and of its cgroups [bytes]."""
    return min([host_free_memory(), *_free_in_cgroups()])


def free_in_group(group: Path) -> int | None:
    """Return what is left in one cgroup (version 2) [bytes]; None: it has no limit.

    Source: the kernel's cgroup-v2.rst. Cached files that were not used lately are given
    up for whoever needs memory.
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
