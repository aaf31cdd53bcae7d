"""Log services made of real sockets, and what they receive."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PATIENCE = 60.0


@contextmanager
def open_log_socket(path: Path) -> Iterator[socket.socket]:
    """A datagram socket bound to *path*, such as that of journald."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(path))
        made.settimeout(_PATIENCE)
        try:
            yield made
        finally:
            path.unlink(missing_ok=True)


def receive(made: socket.socket) -> bytes:
    """Return the next message: a datagram, or the sealed file that came with one."""
    data, descriptors, _, _ = socket.recv_fds(made, 1 << 20, 1)
    if not descriptors:
        return data
    with open(descriptors[0], "rb") as file:
        file.seek(0)
        return data + file.read()


def fields_of(entry: bytes) -> dict[str, str]:
    """Decode an entry in the native protocol of journald."""
    found = {}
    rest = entry
    while rest:
        line, _, rest = rest.partition(b"\n")
        name, separator, value = line.partition(b"=")
        if not separator:  # the value is binary: its size comes first
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size + 1 :]
        found[name.decode()] = value.decode("utf-8", "backslashreplace")
    return found
