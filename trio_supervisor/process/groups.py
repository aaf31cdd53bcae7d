"""Process groups by number, without signalling a number that was given to another.

Standard library only: the guardian runs this in a process of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Final

IS_LINUX: Final = sys.platform == "linux"


def group_exists(group: int) -> bool:
    """Whether any process, be it a zombie, is in *group*."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it exists, and belongs to somebody else now
        return True
    return True


def read_stat(pid: int) -> tuple[str, int] | None:
    """Return state and group of process *pid*; None: it is gone.

    Source: proc_pid_stat(5). The command's name, field 2, may hold any character; the
    last ``)`` ends it.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[2])
    except (OSError, IndexError, ValueError):
        return None


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def open_members(belongs: Callable[[int], bool]) -> list[int]:
    """Return a pidfd for each living process that *belongs*; the caller closes them.

    *belongs* is asked once more after the pidfd was opened: the descriptor then surely
    refers to the process that was meant, for a number is not given away twice at once.
    """
    descriptors = []
    for pid in _pids():
        if not belongs(pid):
            continue
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            if belongs(pid):
                descriptors.append(descriptor)
            else:
                os.close(descriptor)
    return descriptors


def is_live_member(group: int) -> Callable[[int], bool]:
    """Return a test for pids: alive (no zombie), and in *group*."""

    def belongs(pid: int) -> bool:
        return (stat := read_stat(pid)) is not None and (
            stat[1] == group and stat[0] not in "ZX"
        )

    return belongs


def is_alive(pid: int) -> bool:
    """Whether process *pid* is there, and no zombie."""
    return (stat := read_stat(pid)) is not None and stat[0] not in "ZX"


def has_variable(pid: int, variable: bytes) -> bool:
    """Whether process *pid* has *variable*, ``NAME=VALUE``, in its environment.

    As it was when it began; false if that cannot be read.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return variable in file.read().split(b"\0")
    except OSError:
        return False


def open_descriptor(pid: int) -> int | None:
    """Return a pidfd of process *pid*; None: it is gone."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def signal_descriptor(descriptor: int, sig: int) -> None:
    """Send *sig* to the process behind a pidfd, unless it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(descriptor, sig)
