"""Create and remove the files of Unix sockets, atomically.

The file of a running server is never replaced, and only the process that created a file
removes it. Failures are an `OSError`; ``EADDRINUSE`` if another server uses the path.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from attrs import define, field

from trio_supervisor.owned_files import Lock, lock_beside, remove_own
from trio_supervisor.process.owners import give_to

# sun_path of sockaddr_un without the NUL (unix(7); 104 on macOS and the BSDs), and
# without the suffix that a file has until it is complete.
MAX_PATH: Final = (107 if sys.platform == "linux" else 103) - 1
_UNFINISHED: Final = "~"
_UCRED: Final = struct.Struct("3i")


@define(eq=False)
class UnixSocketFile:
    """A listening socket with its file; made by `open_unix_socket_file`."""

    path: str
    mode: int
    backlog: int
    user: str | int | None
    group: str | int | None
    _lock: Lock
    listener: socket.socket = field(init=False)
    _made: os.stat_result = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.listener, self._made = self._make()

    def restore(self) -> bool:
        """Recreate the file and its lock if removed; return whether the file was.

        The descriptor then refers to a new socket. Processes that have inherited the
        old socket get no new connections.

        Raises:
            OSError: they cannot be created.
        """
        os.makedirs(os.path.dirname(self.path) or ".", mode=0o755, exist_ok=True)
        self._lock.restore()
        if os.path.lexists(self.path):
            return False
        fresh, self._made = self._make()
        with fresh:
            os.dup2(fresh.fileno(), self.listener.fileno(), inheritable=False)
        return True

    def close(self) -> None:
        """ListenAddress no more, and remove the file."""
        remove_own(self.path, self._made)
        self.listener.close()

    def _make(self) -> tuple[socket.socket, os.stat_result]:
        listener = socket.socket(socket.AF_UNIX)
        unfinished = self.path + _UNFINISHED
        made = None
        try:
            with suppress(FileNotFoundError):
                os.unlink(unfinished)  # of a killed process; we hold the lock
            with suppress(OSError):  # on Linux, the file is created with this mode
                os.fchmod(listener.fileno(), self.mode)
            listener.bind(unfinished)
            made = os.lstat(unfinished)
            give_to(unfinished, self.user, self.group)
            os.chmod(unfinished, self.mode)
            listener.listen(self.backlog)
            os.rename(unfinished, self.path)
        except BaseException:
            listener.close()
            if made is not None:
                remove_own(unfinished, made)
            raise
        return listener, made


@contextmanager
def open_unix_socket_file(
    path: str,
    *,
    mode: int,
    backlog: int,
    user: str | int | None = None,
    group: str | int | None = None,
) -> Iterator[UnixSocketFile]:
    """Listen on *path* within the block; remove the file at the end.

    A stale file, whose server is gone, is replaced atomically: at no time is the file
    missing, its mode wider, or a connection refused. The socket is bound under another
    name than *path*, so that a server in a worker, such as asyncio's, does not remove
    the file when it closes.

    Args:
        user: Owner of the file, by name or number; None: the user of this process.
        group: Group of the file.

    Raises:
        OSError: it cannot be created, or its owners cannot be set; ``EADDRINUSE``:
            another server uses the path.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise OSError(errno.ENAMETOOLONG, f"the path is longer than {MAX_PATH} bytes")
    with _lock(path) as lock:
        _refuse_running(path)
        kept = UnixSocketFile(path, mode, backlog, user, group, lock)
        try:
            yield kept
        finally:
            kept.close()


@contextmanager
def _lock(path: str) -> Iterator[Lock]:
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(lock_beside(path))
        except BlockingIOError:
            raise OSError(errno.EADDRINUSE, "in use by another controller") from None
        yield lock


def _refuse_running(path: str) -> None:
    """Return if *path* is free or a stale socket; raise `OSError` otherwise."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "the file exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except BlockingIOError:
            pass  # its backlog is full: a server is running
        raise OSError(errno.EADDRINUSE, f"in use by {_server(probe)}")


def _server(probe: socket.socket) -> str:
    if sys.platform == "linux":
        with suppress(OSError):
            data = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            process_id, _, _ = _UCRED.unpack(data)
            if process_id:
                return f"pid {process_id}"
    return "another process"
