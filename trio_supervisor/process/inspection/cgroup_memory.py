"""Read the memory counters of a process's cgroup, version 1 or 2. Linux."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from trio_supervisor.policy.out_of_memory import CgroupMemory

ROOT: Final = Path("/")
# "max" in version 1: the largest multiple of a page in a signed 64-bit integer.
_UNLIMITED: Final = 2**62


def memory_cgroup(process_id: int, root: Path = ROOT) -> Path | None:
    """Return the directory of the cgroup that limits a process's memory.

    None: the process is gone, or this machine has no memory cgroups.

    Args:
        root: Directory that holds ``proc`` and ``sys``.
    """
    try:
        lines = (root / f"proc/{process_id}/cgroup").read_text(encoding="utf-8")
    except OSError:
        return None
    unified = None
    for line in lines.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if "memory" in controllers.split(","):
            # Without a cgroup namespace a container sees the host's name of its
            # cgroup, but its own cgroup is mounted as the root.
            mount = root / "sys/fs/cgroup/memory"
            found = mount / name.lstrip("/")
            return found if (found / "memory.oom_control").exists() else mount
        if number == "0":
            unified = _of_second_version(root, name.lstrip("/"))
    return unified


def _of_second_version(root: Path, name: str) -> Path | None:
    # Where version 1 is mounted as well, version 2 may have the memory controller.
    for mount in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
        if (root / mount / name / "memory.events").exists():
            return root / mount / name
    return None


def read_cgroup_memory(group: Path) -> CgroupMemory | None:
    """Return the counters of *group*, a result of `memory_cgroup`; None: unreadable."""
    with suppress(OSError, ValueError):
        is_first_version = (group / "memory.oom_control").exists()
        name = "memory.oom_control" if is_first_version else "memory.events"
        kills = _counters(group / name).get("oom_kill")
        if kills is None:  # version 1 before Linux 4.13
            return None
        read = _limit_of_first_version if is_first_version else _limit
        reached = (read(each) for each in _with_parents(group))
        return CgroupMemory(
            kills=kills, reached=tuple(each for each in reached if each is not None)
        )
    return None


def _with_parents(group: Path) -> Iterator[Path]:
    for each in (group, *group.parents):
        if not (each / "cgroup.procs").exists():
            return
        yield each


def _limit(group: Path) -> tuple[int, int] | None:
    with suppress(OSError, ValueError):
        limit = int((group / "memory.max").read_text())  # or "max"
        return limit, _counters(group / "memory.events").get("oom", 0)
    return None


def _limit_of_first_version(group: Path) -> tuple[int, int] | None:
    with suppress(OSError, ValueError):
        limit = int((group / "memory.limit_in_bytes").read_text())
        if limit < _UNLIMITED:
            return limit, int((group / "memory.failcnt").read_text())
    return None


def _counters(path: Path) -> dict[str, int]:
    """Return the lines of *path*, each a name and a number."""
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
