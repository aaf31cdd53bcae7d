"""Files that one process holds, and the directories that it trusts with them."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Lock:
    """The file *path* + ``.lock``, held; made by `lock_beside`."""

    def __init__(self, path: str) -> None:
        self._path = f"{path}.lock"
        self._descriptor, self._made = _acquire(self._path)

    def restore(self) -> bool:
        """Make the file again if it is gone, and hold that; say whether it was.

        Raises:
            BlockingIOError: another process was there before, and holds it.
            OSError: it cannot be made now.
        """
        if is_at(self._path, self._made):
            return False
        descriptor, self._made = _acquire(self._path)
        os.close(self._descriptor)
        self._descriptor = descriptor
        return True

    def close(self) -> None:
        """Remove the file, and give the lock back."""
        remove_own(self._path, self._made)
        os.close(self._descriptor)


@contextmanager
def lock_beside(path: str) -> Iterator[Lock]:
    """Hold the file *path* + ``.lock``, of mode 0600, for the length of the block.

    The kernel gives it back when we are killed; otherwise it is removed at the end.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be made.
    """
    lock = Lock(path)
    try:
        yield lock
    finally:
        lock.close()


def _acquire(lock_path: str) -> tuple[int, os.stat_result]:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        lock = os.open(lock_path, flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whatever the umask: one without rights could not be locked by the next.
            with suppress(OSError):
                os.fchmod(lock, 0o600)
            held = os.fstat(lock)
        except BaseException:
            os.close(lock)
            raise
        if is_at(lock_path, held):
            return lock, held
        # Its holder removed it between our open and our lock: take the new one.
        os.close(lock)


def remove_own(path: str, made: os.stat_result) -> None:
    """Remove the file at *path* if it is the one that was *made*."""
    with suppress(OSError):  # gone already; or its directory was made read-only
        if is_at(path, made):
            os.unlink(path)


def is_at(path: str, made: os.stat_result) -> bool:
    """Whether the file at *path* is the one that was *made*."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino)


def check_directory(path: str) -> None:
    """Refuse a directory in which another user could have us write elsewhere.

    It has to belong to us or to root and not to be writable by all; and no symbolic
    link on the way to it may be another user's.

    Raises:
        OSError: it is refused, or is not there.
    """
    check_links(path)
    found = os.stat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
    if not _is_trusted(found):
        problem = f"belongs to user {found.st_uid}; not used"
        raise PermissionError(errno.EPERM, problem, path)
    if found.st_mode & stat.S_IWOTH:
        raise PermissionError(errno.EPERM, "writable by all users; not used", path)


def check_links(path: str) -> None:
    """Refuse *path* if a symbolic link on the way to it is another user's.

    The rest of the path may be missing.

    Raises:
        PermissionError: there is such a link.
    """
    here = "/" if os.path.isabs(path) else ""
    for part in filter(None, path.split("/")):
        here = os.path.join(here, part)
        try:
            found = os.lstat(here)
        except OSError:
            return
        if stat.S_ISLNK(found.st_mode) and not _is_trusted(found):
            problem = f"a symbolic link of user {found.st_uid}; not followed"
            raise PermissionError(errno.EPERM, problem, here)


def _is_trusted(found: os.stat_result) -> bool:
    return found.st_uid in (0, os.geteuid())
