"""Files that one process holds: a lock beside a path, and what it made itself."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def lock_beside(path: str) -> Iterator[None]:
    """Hold the file *path* + ``.lock``, of mode 0600, for the length of the block.

    The kernel gives it back when we are killed; otherwise it is removed at the end.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be made.
    """
    lock_path = f"{path}.lock"
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(lock_path, flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whatever the umask: one without rights could not be locked by the next.
            with suppress(OSError):
                os.fchmod(lock, 0o600)
            held = os.fstat(lock)
            if _is_at(lock_path, held):
                try:
                    yield
                finally:
                    remove_own(lock_path, held)
                return
            # Its holder removed it between our open and our lock: take the new one.
        finally:
            os.close(lock)


def remove_own(path: str, made: os.stat_result) -> None:
    """Remove the file at *path* if it is the one that was *made*."""
    with suppress(OSError):  # gone already; or its directory was made read-only
        if _is_at(path, made):
            os.unlink(path)


def _is_at(path: str, made: os.stat_result) -> bool:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino)
