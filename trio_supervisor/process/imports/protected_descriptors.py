"""Protect descriptors from an import that closes or replaces all of them.

Code that daemonizes closes every descriptor, and a fork server would lose the
connection to its controller. During an import, the closing functions of `os` treat the
protected descriptors as numbers that are not open.
"""

from __future__ import annotations

import errno
import functools
import os
import posix
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def keep_open(*descriptors: int) -> Iterator[None]:
    """Keep *descriptors* of this process open within the block."""
    process_id = posix.getpid()
    kept = sorted(descriptors)

    def is_kept(descriptor: object) -> bool:
        return descriptor in kept and posix.getpid() == process_id

    @functools.wraps(posix.close)
    def close(fd: Any) -> None:
        if is_kept(fd):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        posix.close(fd)

    @functools.wraps(posix.closerange)
    def closerange(fd_low: Any, fd_high: Any, /) -> None:
        if posix.getpid() == process_id:
            for descriptor in kept:
                if fd_low <= descriptor < fd_high:
                    posix.closerange(fd_low, descriptor)
                    fd_low = descriptor + 1
        posix.closerange(fd_low, fd_high)

    @functools.wraps(posix.dup2)
    def dup2(fd: Any, fd2: Any, inheritable: bool = True) -> int:
        if is_kept(fd2):
            posix.fstat(fd)  # raises the same error as dup2
            return int(fd2)
        return posix.dup2(fd, fd2, inheritable)

    replaced = {"close": close, "closerange": closerange, "dup2": dup2}
    originals = {name: getattr(os, name) for name in replaced}
    for name, function in replaced.items():
        setattr(os, name, function)
    try:
        yield
    finally:
        for name, function in replaced.items():
            if getattr(os, name) is function:  # else the import has patched it
                setattr(os, name, originals[name])
