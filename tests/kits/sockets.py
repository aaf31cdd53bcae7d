"""Helpers for tests of listening sockets."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trio_supervisor.application import Listen
from trio_supervisor.process.sockets.sockets import SocketSet

ANYWHERE = Listen("tcp://127.0.0.1:0")


def descriptors() -> set[str]:
    """Return the open descriptors of this process."""
    return set(os.listdir("/dev/fd"))


def check_no_leak(before: set[str]) -> None:
    """Check that no descriptor is open that is not in *before*.

    A thread that an earlier test has left may open and close some of its own.
    """
    deadline = time.monotonic() + 30
    while not (left := descriptors()) <= before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left <= before


def unused_port() -> int:
    """Return a TCP port of the loopback address at which nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def exists(path: str) -> bool:
    """Return whether *path* exists, as any kind of file."""
    return os.path.lexists(path)


def inode(descriptor: int) -> int:
    """Return the inode, which identifies a socket independent of its number."""
    return os.fstat(descriptor).st_ino


def name_of(descriptor: int) -> Any:
    """Return the address that a socket is bound to."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        return sock.getsockname()


def only(sockets: SocketSet, name: str = "web", index: int = 0) -> int:
    """Return the descriptor of one socket for one worker."""
    return sockets.descriptors([name], index)[name]


def port_of(sockets: SocketSet, name: str = "web") -> int:
    """Return the port in use."""
    return int(sockets.addresses[name].rpartition(":")[2])


def can_connect(address: str) -> bool:
    """Return whether a server listens on HOST:PORT or unix:PATH."""
    where: Any
    if address.startswith("unix:"):
        family, where = socket.AF_UNIX, address.removeprefix("unix:")
    else:
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        where = (host.strip("[]"), int(port))
    with socket.socket(family) as client:
        try:
            client.connect(where)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        return True


@contextmanager
def listening(
    address: str | tuple[str, int] = ("127.0.0.1", 0),
) -> Iterator[socket.socket]:
    """A socket of another server."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind(address)
        sock.listen()
        yield sock
