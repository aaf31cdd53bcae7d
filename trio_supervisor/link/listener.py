"""Open the control socket: for this user only, and never in place of a running one."""

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
# Limited by the kernel to net.core.somaxconn. While the supervisor is being replaced,
# all workers and clients wait in the backlog.
_BACKLOG: Final = 4096
_MODE: Final = 0o600
_SHARED_MODE: Final = 0o666


def check_socket_path(path: str) -> None:
    """Check that a socket can be created at *path*.

    Raises:
        SocketPathError: it is too long, its directory does not exist, or another kind
            of file is in its place.
    """
    if "\0" in path:
        raise SocketPathError(f"the socket path contains a NUL character: {path!r}")
    length = len(os.fsencode(path))
    if length > MAX_PATH:
        raise SocketPathError(
            f"the socket path is {length} bytes long (maximum {MAX_PATH}); choose a "
            f"shorter one with --socket: {path}"
        )
    directory = os.path.dirname(path) or "."
    try:
        check_links(directory)
    except PermissionError as exc:
        problem = f"{exc.strerror}: {exc.filename}"
        raise SocketPathError(f"the socket directory is refused: {problem}") from None
    if not os.path.isdir(directory):
        raise SocketPathError(f"the socket directory does not exist: {directory}")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise SocketPathError(
            f"the socket directory is not writable: {directory}; choose another one "
            f"with --socket"
        )
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise SocketPathError(f"the file at the socket path is no socket: {path}")


class ControlSocket:
    """A listening socket with its file and lock; made by `keep_listener`."""

    def __init__(self, path: str, lock: Lock) -> None:
        self.path = path
        self._lock = lock
        self._mode = _MODE
        self.socket, self._made = _listen(path, self._mode)

    def admit_other_users(self) -> None:
        """Let any user connect: the server checks the credentials of each.

        Raises:
            OSError: the mode of the file cannot be changed.
        """
        if self._mode != _SHARED_MODE and is_at(self.path, self._made):
            os.chmod(self.path, _SHARED_MODE)
        self._mode = _SHARED_MODE

    def restore(self) -> tuple[str, ...]:
        """Recreate the socket file or the lock if removed; return their paths.

        A recreated file belongs to a new socket under the same descriptor. Processes
        that have inherited the old socket get no new connections.

        Raises:
            OSError: they cannot be created.
        """
        found = []
        os.makedirs(os.path.dirname(self.path) or ".", mode=0o700, exist_ok=True)
        if self._lock.restore():
            found.append(f"{self.path}.lock")
        if not os.path.lexists(self.path):
            fresh, self._made = _listen(self.path, self._mode)
            with fresh:
                os.dup2(fresh.fileno(), self.socket.fileno(), inheritable=False)
            found.append(self.path)
        elif not is_at(self.path, self._made):
            raise FileExistsError(errno.EEXIST, "replaced by another file", self.path)
        return tuple(found)

    def close(self) -> None:
        """Stop listening, and remove the file."""
        remove_own(self.path, self._made)
        self.socket.close()


@contextmanager
def keep_listener(path: str) -> Iterator[ControlSocket]:
    """Listen on *path* within the block; remove the file at the end.

    A stale socket file, whose server is gone, is replaced. The file has mode 0600,
    independent of the umask, until `ControlSocket.admit_other_users` is called.

    Raises:
        SocketPathError: as for `check_socket_path`.
        AlreadyServingError: another server uses the path.
    """
    check_socket_path(path)
    with _locked(path) as lock:
        _remove_stale(path)
        try:
            listener = ControlSocket(path, lock)
        except OSError as exc:
            raise SocketPathError(f"cannot listen on {path}: {exc}") from exc
        try:
            yield listener
        finally:
            listener.close()


def _listen(path: str, mode: int) -> tuple[socket.socket, os.stat_result]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(OSError):  # on Linux, the file is created with this mode
            os.fchmod(listener.fileno(), mode)
        listener.bind(path)
        os.chmod(path, mode)
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
                f"another controller is already serving on {path}; stop it, or choose "
                f"another socket with --socket"
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
            pass  # its backlog is full: a server is running
        except OSError as exc:
            if exc.errno == errno.EPROTOTYPE:
                raise SocketPathError(f"{path} is a socket of another type") from exc
            raise SocketPathError(f"cannot replace {path}: {exc}") from exc
    raise AlreadyServingError(
        f"another process is already serving on {path}; stop it, or choose another "
        f"socket with --socket"
    )
