"""Make the listening socket: for this user only, and never over a living one."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from trio_supervisor.errors import AlreadyServingError, SocketPathError

# sun_path of sockaddr_un, less the NUL: unix(7). 104 on macOS and the BSDs.
MAX_PATH: Final = 107 if os.uname().sysname == "Linux" else 103
# The kernel cuts it to net.core.somaxconn. While a supervisor is being replaced, all
# workers and clients wait in here.
_BACKLOG: Final = 4096


def check_socket_path(path: str) -> None:
    """Say whether a socket can be made at *path* at all.

    Raises:
        SocketPathError: it is too long, its directory is missing, or something else
            is there.
    """
    length = len(os.fsencode(path))
    if length > MAX_PATH:
        raise SocketPathError(
            f"the socket's path is {length} bytes long, and at most {MAX_PATH} are "
            f"possible; choose a shorter one with --socket: {path}"
        )
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        raise SocketPathError(f"the socket's directory does not exist: {directory}")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise SocketPathError(
            f"the socket's directory is not writable: {directory}; choose another one "
            f"with --socket"
        )
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise SocketPathError(f"there is something that is no socket at {path}")


@contextmanager
def open_listener(path: str) -> Iterator[socket.socket]:
    """Listen at *path* for the length of the block; leave nothing behind.

    A stale socket file, whose server is gone, is taken over. The file has mode 0600
    whatever the umask.

    Raises:
        SocketPathError: as for `check_socket_path`.
        AlreadyServingError: somebody serves there.
    """
    check_socket_path(path)
    with _locked(path):
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with listener:
            with suppress(OSError):  # Linux: no moment with a wider mode
                os.fchmod(listener.fileno(), 0o600)
            try:
                listener.bind(path)
            except OSError as exc:
                raise SocketPathError(f"cannot listen at {path}: {exc}") from exc
            os.chmod(path, 0o600)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            made = os.lstat(path)
            try:
                yield listener
            finally:
                _remove_own(path, made)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold the lock file beside *path*; the kernel gives it back when we are killed."""
    lock_path = f"{path}.lock"
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            lock = os.open(lock_path, flags, 0o600)
        except OSError as exc:
            raise SocketPathError(f"cannot lock {lock_path}: {exc}") from exc
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyServingError(
                    f"another controller serves at {path}; stop it, or choose another "
                    f"socket with --socket"
                ) from None
            # Whatever the umask: one without rights could not be locked by the next.
            with suppress(OSError):
                os.fchmod(lock, 0o600)
            held = os.fstat(lock)
            with suppress(FileNotFoundError):
                found = os.lstat(lock_path)
                if (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino):
                    try:
                        yield
                    finally:
                        _remove_own(lock_path, held)
                    return
            # Its holder removed it between our open and our lock: take the new one.
        finally:
            os.close(lock)


def _remove_stale(path: str) -> None:
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its backlog is full: it lives
        except OSError as exc:
            if exc.errno == errno.EPROTOTYPE:
                raise SocketPathError(f"a socket of another kind is at {path}") from exc
            raise SocketPathError(f"cannot take over {path}: {exc}") from exc
    raise AlreadyServingError(
        f"somebody serves at {path}; stop it, or choose another socket with --socket"
    )


def _remove_own(path: str, made: os.stat_result) -> None:
    with suppress(OSError):  # gone already; or its directory was made read-only
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
            os.unlink(path)
