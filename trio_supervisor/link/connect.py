"""Connect to a Unix socket, and wait where its backlog is full."""

from __future__ import annotations

import socket
from typing import Final

import trio

# While a supervisor is being replaced the backlog holds thousands; then, ask again.
_RETRY: Final = 0.02


async def connect_unix(path: str) -> trio.SocketStream:
    """Connect to the stream socket at *path*.

    Waits for as long as its backlog is full; put `trio.fail_after` around it. A
    cancellation leaves nothing open. (``trio.open_unix_socket`` takes the EAGAIN of a
    full backlog for a connection under way, and fails at the first byte.)

    Raises:
        OSError: nobody listens there, or we may not connect.
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
