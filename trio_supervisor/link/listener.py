"""Make the listening socket: for this user only, and never over a living one."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from trio_supervisor.errors import AlreadyServingError, SocketPathError
from trio_supervisor.owned_files import (
    Lock,
    check_links,
    is_at,
    lock_beside,
    remove_own,
)

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
    if "\0" in path:
        raise SocketPathError(f"the socket's path contains a NUL character: {path!r}")
    length = len(os.fsencode(path))
    if length > MAX_PATH:
        raise SocketPathError(
            f"the socket's path is {length} bytes long, and at most {MAX_PATH} are "
            f"possible; choose a shorter one with --socket: {path}"
        )
    directory = os.path.dirname(path) or "."
    try:
        check_links(directory)
    except PermissionError as exc:
        problem = f"{exc.strerror}: {exc.filename}"
        raise SocketPathError(f"the socket's directory is refused: {problem}") from None
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


class Listener:
    """A listening socket, its file and the lock beside it; made by `keep_listener`."""

    def __init__(self, path: str, lock: Lock) -> None:
        self.path = path
        self._lock = lock
        self.socket, self._made = _listen(path)

    def restore(self) -> tuple[str, ...]:
        """Make again what is gone of the two files; return their paths.

        With the socket's file the socket is another one, under the same number:
        whoever inherited the one before listens where nobody comes any more.

        Raises:
            OSError: that is not possible now.
        """
        found = []
        os.makedirs(os.path.dirname(self.path) or ".", mode=0o700, exist_ok=True)
        if self._lock.restore():
            found.append(f"{self.path}.lock")
        if not os.path.lexists(self.path):
            fresh, self._made = _listen(self.path)
            with fresh:
                os.dup2(fresh.fileno(), self.socket.fileno(), inheritable=False)
            found.append(self.path)
        elif not is_at(self.path, self._made):
            raise FileExistsError(errno.EEXIST, "something else is there", self.path)
        return tuple(found)

    def close(self) -> None:
        """Listen no more, and remove the file."""
        remove_own(self.path, self._made)
        self.socket.close()


@contextmanager
def open_listener(path: str) -> Iterator[socket.socket]:
    """Listen at *path* for the length of the block; see `keep_listener`."""
    with keep_listener(path) as listener:
        yield listener.socket


@contextmanager
def keep_listener(path: str) -> Iterator[Listener]:
    """Listen at *path* for the length of the block; leave nothing behind.

    A stale socket file, whose server is gone, is taken over. The file has mode 0600
    whatever the umask.

    Raises:
        SocketPathError: as for `check_socket_path`.
        AlreadyServingError: somebody serves there.
    """
    check_socket_path(path)
    with _locked(path) as lock:
        _remove_stale(path)
        try:
            listener = Listener(path, lock)
        except OSError as exc:
            raise SocketPathError(f"cannot listen at {path}: {exc}") from exc
        try:
            yield listener
        finally:
            listener.close()


def _listen(path: str) -> tuple[socket.socket, os.stat_result]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(OSError):  # Linux: no moment with a wider mode
            os.fchmod(listener.fileno(), 0o600)
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        return listener, os.lstat(path)
    except BaseException:
        listener.close()
        raise


@contextmanager
def _locked(path: str) -> Iterator[Lock]:
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(lock_beside(path))
        except BlockingIOError:
            raise AlreadyServingError(
                f"another controller serves at {path}; stop it, or choose another "
                f"socket with --socket"
            ) from None
        except OSError as exc:
            raise SocketPathError(f"cannot lock {path}.lock: {exc}") from exc
        yield lock


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
