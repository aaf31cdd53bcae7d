"""Lock files owned by one process, and checks of the directories that hold them."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Lock:
    """A held lock file, *path* + ``.lock``; made by `lock_beside`."""

    def __init__(self, path: str) -> None:
        self._path = f"{path}.lock"
        self._descriptor, self._made = _acquire(self._path)

    def restore(self) -> bool:
        """Recreate and lock the file if it was removed; return whether it was.

        Raises:
            BlockingIOError: another process has created and locked it in between.
            OSError: it cannot be created.
        """
        if is_at(self._path, self._made):
            return False
        descriptor, self._made = _acquire(self._path)
        os.close(self._descriptor)
        self._descriptor = descriptor
        return True

    def close(self) -> None:
        """Remove the file, and release the lock."""
        remove_own(self._path, self._made)
        os.close(self._descriptor)


@contextmanager
def lock_beside(path: str) -> Iterator[Lock]:
    """Lock the file *path* + ``.lock``, of mode 0600, within the block.

    It is removed at the end. If this process is killed, the kernel releases the lock.

    Raises:
        BlockingIOError: another process has locked it.
        OSError: it cannot be created.
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
            # Independent of the umask: without permissions, the next process could not
            # lock it.
            with suppress(OSError):
                os.fchmod(lock, 0o600)
            held = os.fstat(lock)
        except BaseException:
            os.close(lock)
            raise
        if is_at(lock_path, held):
            return lock, held
        # Its holder removed it between our open and our lock: lock the new one.
        os.close(lock)


def remove_own(path: str, made: os.stat_result) -> None:
    """Remove the file at *path* if it is the one that was *made*."""
    with suppress(OSError):  # removed already, or its directory is read-only
        if is_at(path, made):
            os.unlink(path)


def is_at(path: str, made: os.stat_result) -> bool:
    """Return whether the file at *path* is the one that was *made*."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino)


def check_directory(path: str) -> None:
    """Refuse a directory in which another user could redirect our writes.

    It has to be owned by this user or root and must not be world-writable, and no
    symbolic link on the path may be owned by another user.

    Raises:
        OSError: it is refused, or does not exist.
    """
    check_links(path)
    found = os.stat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
    if not _is_trusted(found):
        problem = f"owned by another user (uid {found.st_uid}); refused"
        raise PermissionError(errno.EPERM, problem, path)
    if found.st_mode & stat.S_IWOTH:
        raise PermissionError(errno.EPERM, "world-writable; refused", path)


def check_links(path: str) -> None:
    """Refuse *path* if a symbolic link on it is owned by another user.

    The rest of the path need not exist.

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
            problem = f"symbolic link owned by uid {found.st_uid}; not followed"
            raise PermissionError(errno.EPERM, problem, here)


def _is_trusted(found: os.stat_result) -> bool:
    return found.st_uid in (0, os.geteuid())
