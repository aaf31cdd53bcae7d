"""See which processes are in a cgroup, and move them out of it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from trio_supervisor.process.cgroups.leaf import processes_in
from trio_supervisor.process.groups import command_of, is_alive

# A process may fork while it is moved.
_MOVES: Final = 20
# Deeper trees do not occur below a controller.
_DEPTH: Final = 64
_MOST_NAMED: Final = 3


def others_problem(base: Path) -> str:
    """Return why *base* cannot be divided: other programs are in it; empty: none is.

    The processes of this program are itself and its descendants.
    """
    others = [pid for pid in processes_in(base) if not _is_ours(pid) and _is_there(pid)]
    if not others:
        return ""
    named = ", ".join(f"pid {pid} ({command_of(pid)})" for pid in others[:_MOST_NAMED])
    more = len(others) - _MOST_NAMED
    return (
        f"other processes than the controller's are in its cgroup {base}: {named}"
        f"{f' and {more} more' if more > 0 else ''}; run the controller in a cgroup of "
        f"its own, under systemd with Delegate=yes"
    )


def move_all(source: Path, target: Path) -> None:
    """Move all processes from the cgroup *source* to *target*.

    Raises:
        OSError: the kernel refuses it.
    """
    for _ in range(_MOVES):
        if not (found := processes_in(source)):
            return
        for process_id in found:
            with suppress(ProcessLookupError):
                (target / "cgroup.procs").write_text(str(process_id))


def _is_there(process_id: int) -> bool:
    # The kernel shows 0 for a process outside of this PID namespace.
    return process_id == 0 or is_alive(process_id)


def _is_ours(process_id: int) -> bool:
    for _ in range(_DEPTH):
        if process_id == os.getpid():
            return True
        if process_id <= 1:
            return False
        process_id = _parent_of(process_id)
    return False


def _parent_of(process_id: int) -> int:
    """Return the parent of a process; 0: it has exited. Source: proc_pid_stat(5)."""
    try:
        with open(f"/proc/{process_id}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
