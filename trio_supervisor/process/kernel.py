"""Call prctl(2), list children through /proc, and reap process groups."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from trio_supervisor.process.groups import IS_LINUX

# Source: linux/prctl.h.
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_GET_CHILD_SUBREAPER: Final = 37


def is_subreaper() -> bool:
    """Return whether orphaned descendants become children of this process."""
    if not IS_LINUX:
        return False
    value = ctypes.c_int(0)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(value), 0, 0, 0)
    return bool(value.value)


def set_subreaper(is_on: bool) -> bool:
    """Make this process a subreaper, or not; return whether that succeeded.

    Source: prctl(2), PR_SET_CHILD_SUBREAPER, Linux 3.4.
    """
    if not IS_LINUX:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, int(is_on), 0, 0, 0) == 0)


def die_with_parent(parent: int) -> None:
    """Make the kernel kill this process when the thread that started it exits.

    Source: prctl(2), PR_SET_PDEATHSIG. It depends on that *thread*, so use it only for
    processes started by a main thread.
    """
    if IS_LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(
            _PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0
        )
        if os.getppid() != parent:  # the parent has exited before
            os._exit(1)


def forget_parent() -> None:
    """Undo `die_with_parent`."""
    if IS_LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


_subreapers = 0
"""Number of open blocks of `be_subreaper`: the setting belongs to the process."""


@contextmanager
def be_subreaper() -> Iterator[bool]:
    """Make this process a subreaper within the block.

    Yields False if the system does not support subreapers.
    """
    global _subreapers
    was_on = is_subreaper()
    is_on = was_on or set_subreaper(True)
    is_counted = is_on and (not was_on or _subreapers > 0)
    _subreapers += is_counted
    try:
        yield is_on
    finally:
        _subreapers -= is_counted
        if is_counted and not _subreapers:
            set_subreaper(False)


def child_pids() -> set[int]:
    """Return the children of this process, including zombies; empty if unknown."""
    found: set[int] = set()
    with suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError), open(f"/proc/self/task/{thread}/children") as file:
                found.update(map(int, file.read().split()))
    return found


def reap_group(group: int) -> None:
    """Reap all zombie children in process group *group*.

    For a group whose leader was a child and is reaped: as long as a zombie is left, the
    number is in use, so no unrelated child is reaped.
    """
    if IS_LINUX:
        with suppress(ChildProcessError):  # no child left in the group
            while os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG) is not None:
                pass
