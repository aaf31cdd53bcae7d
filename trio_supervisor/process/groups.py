"""Inspect and signal process groups, without signalling a reused number.

Standard library only: the guardian runs this in a separate process.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

IS_LINUX: Final = sys.platform == "linux"
# Errors of this process, which say nothing about the inspected one.
_UNKNOWN: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def group_exists(group: int) -> bool:
    """Return whether any process, even a zombie, is in *group*."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it exists, and belongs to another user now
        return True
    return True


class Stat(NamedTuple):
    """Fields of /proc/PID/stat."""

    state: str
    """State of its main thread, as one letter: ``Z`` is a zombie."""
    group: int
    threads: int
    """Number of threads, including a main thread that is a zombie."""

    @property
    def is_alive(self) -> bool:
        """Whether any of its threads runs: the main thread may exit before others."""
        return self.state not in "ZX" or (self.state == "Z" and self.threads > 1)


def read_stat(pid: int) -> Stat | None:
    """Return the stat fields of process *pid*; None: it has exited, or unknown."""
    try:
        return look_up(pid)
    except OSError:
        return None


def look_up(pid: int) -> Stat | None:
    """Return the stat fields of process *pid*; None: it has exited.

    Source: proc_pid_stat(5). The command name, field 2, may contain any character; the
    last ``)`` ends it.

    Raises:
        OSError: unknown, for lack of descriptors or memory.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read().rpartition(b")")[2].split()
        return Stat(fields[0].decode(), int(fields[2]), int(fields[17]))
    except OSError as exc:
        if exc.errno in _UNKNOWN:
            raise
        return None
    except (IndexError, ValueError):
        return None


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def command_of(pid: int) -> str:
    """Return the program name of process *pid*; empty: it has exited."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def open_members(belongs: Callable[[int], bool]) -> list[int]:
    """Return a pidfd for each process that *belongs*; the caller closes them.

    *belongs* is called again after a pidfd was opened, to make sure that the pidfd
    does not refer to another process that has reused the number.

    Raises:
        OSError: unknown, for lack of descriptors or memory.
    """
    descriptors: list[int] = []
    try:
        for pid in _pids():
            if not belongs(pid) or (descriptor := _open_known(pid)) is None:
                continue
            descriptors.append(descriptor)
            if not belongs(pid):
                os.close(descriptors.pop())
    except OSError:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return descriptors


def _open_known(pid: int) -> int | None:
    """Return a pidfd of process *pid*; None: it has exited.

    Raises:
        OSError: unknown, for lack of descriptors or memory.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as exc:
        if exc.errno in _UNKNOWN:
            raise
        return None


def live_members(group: int) -> list[int]:
    """Return the running processes in *group*; empty if unknown."""
    if not IS_LINUX:
        return []
    try:
        return list(filter(is_live_member(group), _pids()))
    except OSError:  # no descriptors, or no memory
        return []


def is_live_member(group: int) -> Callable[[int], bool]:
    """Return a predicate for pids: running (not a zombie), and in *group*."""

    def belongs(pid: int) -> bool:
        stat = look_up(pid)
        return stat is not None and stat.group == group and stat.is_alive

    return belongs


def is_alive(pid: int) -> bool:
    """Return whether process *pid* exists and is not a zombie.

    True if that is unknown for lack of descriptors.
    """
    try:
        return (stat := look_up(pid)) is not None and stat.is_alive
    except OSError:
        return True


def exists(pid: int) -> bool:
    """Return whether process *pid* exists, even as a zombie. Needs no descriptor."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def may_signal(pid: int) -> bool:
    """Return whether this process may signal *pid*; true if that has exited."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False
    except ProcessLookupError:
        pass
    return True


def has_environment(pid: int) -> bool:
    """Return whether *pid* has any variable; false for a moment during execve(2)."""
    return bool(_read(f"/proc/{pid}/environ"))


def has_variable(pid: int, variable: bytes) -> bool:
    """Return whether process *pid* has *variable*, ``NAME=VALUE``, in its environment.

    In its initial environment; false if that cannot be read.
    """
    if environ := _read(f"/proc/{pid}/environ"):
        return variable in environ.split(b"\0")
    # If its main thread has exited, the environment is readable for other threads only.
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return False
    return any(
        variable in _read(f"/proc/{pid}/task/{thread}/environ").split(b"\0")
        for thread in threads
        if thread != str(pid)
    )


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def open_descriptor(pid: int) -> int | None:
    """Return a pidfd of process *pid*; None: it has exited, or no descriptor left."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def signal_descriptor(descriptor: int, sig: int) -> bool:
    """Send *sig* to the process of a pidfd, unless it has exited.

    Return whether that is permitted.
    """
    try:
        signal.pidfd_send_signal(descriptor, sig)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True
