"""What the standard library does not wrap: prctl(2), and /proc where it is."""

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
    """Whether orphaned descendants of this process become its children."""
    if not IS_LINUX:
        return False
    value = ctypes.c_int(0)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(value), 0, 0, 0)
    return bool(value.value)


def set_subreaper(is_on: bool) -> bool:
    """Have orphaned descendants become children of this process; say whether it did.

    Source: prctl(2), PR_SET_CHILD_SUBREAPER, Linux 3.4.
    """
    if not IS_LINUX:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, int(is_on), 0, 0, 0) == 0)


def die_with_parent(parent: int) -> None:
    """Have this process killed when the thread that started it ends.

    Source: prctl(2), PR_SET_PDEATHSIG. It is of that *thread*: only for what a main
    thread has started.
    """
    if IS_LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(
            _PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0
        )
        if os.getppid() != parent:  # it ended before that
            os._exit(1)


def forget_parent() -> None:
    """Undo `die_with_parent`."""
    if IS_LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


_subreapers = 0
"""Blocks of `be_subreaper` that are open: it is the process that is one, not they."""


@contextmanager
def be_subreaper() -> Iterator[bool]:
    """Have orphaned descendants become children of this process for the block.

    Yields whether that is so; it is not where the system has no subreapers.
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
    """Return the children of this process, zombies included; empty where unknown."""
    found: set[int] = set()
    with suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError), open(f"/proc/self/task/{thread}/children") as file:
                found.update(map(int, file.read().split()))
    return found


def reap_group(group: int) -> None:
    """Reap all zombies among our children that are in process group *group*.

    For a group whose leader was a child of ours, and is reaped: its number is in use
    as long as a zombie is left, so nobody else's child is taken.
    """
    if IS_LINUX:
        with suppress(ChildProcessError):  # none is left
            while os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG) is not None:
                pass
