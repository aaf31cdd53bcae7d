"""Process groups by number, without signalling a number that was given to another.

Standard library only: the guardian runs this in a process of its own.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

IS_LINUX: Final = sys.platform == "linux"
# That nothing can be opened says nothing about a process.
_UNKNOWN: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def group_exists(group: int) -> bool:
    """Whether any process, be it a zombie, is in *group*."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it exists, and belongs to somebody else now
        return True
    return True


class Stat(NamedTuple):
    """What /proc/PID/stat says of a process."""

    state: str
    """Of its first thread, as one letter: ``Z`` is a zombie."""
    group: int
    threads: int
    """How many it has, with the first one if that is a zombie."""

    @property
    def is_alive(self) -> bool:
        """Whether any of its threads is: the first one may have ended before others."""
        return self.state not in "ZX" or (self.state == "Z" and self.threads > 1)


def read_stat(pid: int) -> Stat | None:
    """Return what is known of process *pid*; None: it is gone, or nothing is known."""
    try:
        return look_up(pid)
    except OSError:
        return None


def look_up(pid: int) -> Stat | None:
    """Return what is known of process *pid*; None: it is gone.

    Source: proc_pid_stat(5). The command's name, field 2, may hold any character; the
    last ``)`` ends it.

    Raises:
        OSError: that is unknown, for lack of descriptors or memory.
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
    """Return the name of the program that process *pid* runs; empty: it is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def open_members(belongs: Callable[[int], bool]) -> list[int]:
    """Return a pidfd for each living process that *belongs*; the caller closes them.

    *belongs* is asked once more after the pidfd was opened: the descriptor then surely
    refers to the process that was meant, for a number is not given away twice at once.

    Raises:
        OSError: that is unknown, for lack of descriptors or memory.
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
    """Return a pidfd of process *pid*; None: it is gone.

    Raises:
        OSError: there is none for lack of descriptors or memory.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as exc:
        if exc.errno in _UNKNOWN:
            raise
        return None


def live_members(group: int) -> list[int]:
    """Return the processes in *group* that are alive; empty where that is unknown."""
    if not IS_LINUX:
        return []
    try:
        return list(filter(is_live_member(group), _pids()))
    except OSError:  # no descriptors, or no memory
        return []


def is_live_member(group: int) -> Callable[[int], bool]:
    """Return a test for pids: alive (no zombie), and in *group*."""

    def belongs(pid: int) -> bool:
        stat = look_up(pid)
        return stat is not None and stat.group == group and stat.is_alive

    return belongs


def is_alive(pid: int) -> bool:
    """Whether process *pid* is there, and not all of its threads have ended.

    Where that is unknown for lack of descriptors, it is taken to be.
    """
    try:
        return (stat := look_up(pid)) is not None and stat.is_alive
    except OSError:
        return True


def exists(pid: int) -> bool:
    """Whether process *pid* is there, be it a zombie. Needs no descriptor."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def may_signal(pid: int) -> bool:
    """Whether this process is permitted to signal *pid*; true where that is gone."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False
    except ProcessLookupError:
        pass
    return True


def has_variable(pid: int, variable: bytes) -> bool:
    """Whether process *pid* has *variable*, ``NAME=VALUE``, in its environment.

    As it was when it began; false if that cannot be read.
    """
    if environ := _read(f"/proc/{pid}/environ"):
        return variable in environ.split(b"\0")
    # Its first thread has ended, perhaps, and has no memory any more; others have.
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
    """Return a pidfd of process *pid*; None: it is gone, or no descriptor is left."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def signal_descriptor(descriptor: int, sig: int) -> bool:
    """Send *sig* to the process behind a pidfd, unless it is gone.

    Returns whether that is permitted.
    """
    try:
        signal.pidfd_send_signal(descriptor, sig)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True
