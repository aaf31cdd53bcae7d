"""Socket files: made whole, never over a living one, and removed by their maker only.

Whatever stands in the way is an `OSError`, ``EADDRINUSE`` where somebody serves there.
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

# sun_path of sockaddr_un, less the NUL (unix(7); 104 on macOS and the BSDs), and less
# the sign that a file has while it is made.
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
        """Make the file again if it is gone, and its lock; say whether it was.

        The socket is another one then, under the same number: whoever inherited the
        one before listens where nobody comes any more.

        Raises:
            OSError: that is not possible now.
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
                os.unlink(unfinished)  # of a maker that was killed; we have the lock
            with suppress(OSError):  # Linux: no moment with a wider mode
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
    """Listen at *path* for the length of the block; leave nothing behind.

    A stale file, whose server is gone, is replaced in one step: at no moment is there
    no file, a wider mode, or a socket that refuses. The socket's own name is another
    one than *path*, so that no server in a worker removes the file when it ends, as
    asyncio's do.

    Args:
        user: Owner of the file, by name or number; None: this process's user.
        group: Group of the file.

    Raises:
        OSError: it cannot be made, or not be given to *user* and *group*;
            ``EADDRINUSE``: somebody serves there.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise OSError(
            errno.ENAMETOOLONG, f"a path of more than {MAX_PATH} bytes is not possible"
        )
    with _lock(path) as lock:
        _refuse_living(path)
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
            raise OSError(errno.EADDRINUSE, "another controller serves there") from None
        yield lock


def _refuse_living(path: str) -> None:
    """Return where nothing but a stale socket is at *path*."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "something is there that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except BlockingIOError:
            pass  # its backlog is full: it lives
        raise OSError(errno.EADDRINUSE, f"{_server(probe)} serves there")


def _server(probe: socket.socket) -> str:
    if sys.platform == "linux":
        with suppress(OSError):
            data = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            process_id, _, _ = _UCRED.unpack(data)
            if process_id:
                return f"process {process_id}"
    return "another process"
