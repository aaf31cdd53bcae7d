"""Connect to a Unix socket, waiting while its backlog is full."""

from __future__ import annotations

import socket
from typing import Final

import trio

# While the supervisor is being replaced, the backlog fills up; retry until it is served
# [s].
_RETRY: Final = 0.02


async def connect_unix(path: str) -> trio.SocketStream:
    """Connect to the stream socket at *path*.

    Waits while its backlog is full; use `trio.fail_after`. A cancellation leaves
    nothing open. (``trio.open_unix_socket`` mistakes the EAGAIN of a full backlog for a
    connection in progress, and fails at the first byte.)

    Raises:
        OSError: no server listens there, or the permissions do not allow it.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        while True:
            try:
                connection.connect(path)
            except BlockingIOError:
                await trio.sleep(_RETRY)
            else:
                break
        return trio.SocketStream(trio.socket.from_stdlib_socket(connection))
    except BaseException:
        connection.close()
        raise
