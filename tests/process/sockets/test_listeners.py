"""Finding the process that listens on a port, with real sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from trio_supervisor.process.sockets.listeners import find_listening_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@contextmanager
def bound(family: int, kind: int, host: str) -> Iterator[int]:
    with socket.socket(family, kind) as sock:
        sock.bind((host, 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        yield sock.getsockname()[1]


@pytest.mark.parametrize(
    ("family", "kind", "host"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1"),
        (socket.AF_INET6, socket.SOCK_STREAM, "::"),
        (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1"),
    ],
    ids=["tcp", "tcp6", "udp"],
)
def test_find_listening_process_finds_this_process(
    family: int, kind: int, host: str
) -> None:
    with bound(family, kind, host) as port:
        found = find_listening_process([1, port], {os.getpgrp()})
        assert found is not None
        assert (found.port, found.process_id) == (port, os.getpid())
        assert found.group == os.getpgrp()
        assert found.name


def test_find_listening_process_of_free_port_is_none() -> None:
    with bound(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1") as port:
        pass
    assert find_listening_process([port]) is None


def test_find_listening_process_prefers_our_groups() -> None:
    """A child in another group, which is given as preferred."""
    with bound(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1") as port:
        descriptors = [
            int(name)
            for name in os.listdir("/proc/self/fd")
            if "socket" in _link(f"/proc/self/fd/{name}")
        ]
        with subprocess.Popen(
            ["sleep", "100"], pass_fds=descriptors, start_new_session=True
        ) as child:
            try:
                found = find_listening_process([port], {child.pid})
                assert found is not None
                assert (found.process_id, found.name) == (child.pid, "sleep")
            finally:
                child.kill()


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
