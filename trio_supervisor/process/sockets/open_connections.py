"""Count the open connections of a listening socket, in all processes."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

# States of /proc/net/tcp in which a server's end is of use to it.
_OPEN: Final = (b"01", b"08")  # ESTABLISHED, CLOSE_WAIT
_CONNECTED: Final = b"03"
_CONNECTING: Final = b"02"


def count_connections(listening: socket.socket) -> int | None:
    """Return the number of connections that were made to *listening* and are open.

    Those that are accepted by any process count, and those that wait in the backlog.

    Source: proc_net(5), for tcp and unix.

    Returns:
        None if the system does not tell.
    """
    try:
        if listening.family == socket.AF_UNIX:
            return _count_unix(listening.getsockname())
        return _count_tcp(listening.getsockname()[1])
    except (OSError, ValueError, IndexError):
        return None


def _count_tcp(port: int) -> int:
    count, suffix = 0, f":{port:04X}".encode()
    found = False
    for name in ("tcp", "tcp6"):
        with suppress(FileNotFoundError), open(f"/proc/net/{name}", "rb") as file:
            found = True
            next(file)
            for line in file:
                fields = line.split(None, 4)
                count += fields[1].endswith(suffix) and fields[3] in _OPEN
    if not found:
        raise FileNotFoundError("/proc/net/tcp")
    return count


def _count_unix(path: str | bytes) -> int:
    wanted = path if isinstance(path, bytes) else path.encode()
    wanted = wanted.replace(b"\0", b"@")
    count = 0
    with open("/proc/net/unix", "rb") as file:
        next(file)
        for line in file:
            fields = line.rstrip(b"\n").split(None, 7)
            if len(fields) == 8 and fields[7] == wanted:
                count += fields[5] in (_CONNECTED, _CONNECTING)
    return count
