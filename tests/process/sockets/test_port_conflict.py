"""Detecting conflicting listeners through /proc, with real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from trio_supervisor.process.sockets.port_conflict import conflicting_listener

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

SLEEP = [sys.executable, "-S", "-c", "input()"]


@contextmanager
def sleeping(*, fds: tuple[int, ...] = (), **environment: str) -> Iterator[int]:
    """Run a process that inherits *fds*, in its own group."""
    with subprocess.Popen(
        SLEEP,
        stdin=subprocess.PIPE,
        pass_fds=fds,
        process_group=0,
        env={**os.environ, **environment},
    ) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@contextmanager
def listening(host: str, family: int = socket.AF_INET) -> Iterator[socket.socket]:
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        sock.listen()
        yield sock


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("bound", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "::1")],
)
def test_conflicting_listener_names_other_process(bound: str, asked: str) -> None:
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with listening(bound, family) as sock, sleeping() as leader:
        found = conflicting_listener(asked, port_of(sock), leader, "MARK=1")
        assert f"(pid {os.getpid()})" in found


def test_conflicting_listener_ignores_inherited_socket() -> None:
    """Such as a socket that the controller has opened."""
    with listening("127.0.0.1") as sock, sleeping(fds=(sock.fileno(),)) as leader:
        assert conflicting_listener("127.0.0.1", port_of(sock), leader, "MARK=1") == ""


def test_conflicting_listener_ignores_descendants() -> None:
    """Found by parent or, for a daemon, by the mark in its environment."""
    port_pipe, port_end = os.pipe()
    code = (
        "import os, socket, sys\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    os.write(int(sys.argv[1]), b'%d\\n' % s.getsockname()[1])\n"
        "    sys.stdin.read()\n"
        "    os._exit(0)\n"
        "s.close()\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-S", "-c", code, str(port_end)],
        stdin=subprocess.PIPE,
        pass_fds=[port_end],
        process_group=0,
        env={**os.environ, "MARK": "1"},
    ) as parent:
        os.close(port_end)
        with open(port_pipe, "rb") as reader:
            port = int(reader.readline())
        assert conflicting_listener("127.0.0.1", port, parent.pid, "OTHER=1") == ""
        with sleeping() as unrelated:
            assert conflicting_listener("127.0.0.1", port, unrelated, "MARK=1") == ""
            assert conflicting_listener("127.0.0.1", port, unrelated, "MARK=2")
        assert parent.stdin is not None
        parent.stdin.close()


def test_conflicting_listener_unknown_is_empty() -> None:
    with listening("127.0.0.1") as sock:
        port = port_of(sock)
        assert conflicting_listener("127.0.0.1", port, 2**22, "MARK=1") == ""
    with sleeping() as leader:
        assert conflicting_listener("127.0.0.1", port, leader, "MARK=1") == ""


def test_conflicting_listener_names_worker() -> None:
    with listening("127.0.0.1") as sock:
        own = (sock.fileno(),)
        with (
            sleeping(fds=own, TRIO_SUPERVISOR_NAME="web.0") as other,
            sleeping() as leader,
        ):
            port = port_of(sock)
            os.set_inheritable(sock.fileno(), False)
            sock.detach()
            os.close(own[0])
            found = conflicting_listener("127.0.0.1", port, leader, "MARK=1")
            assert found == f"web.0 (pid {other})"
