"""Counting the connections of listening sockets of this process."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest

from trio_supervisor.process.sockets.open_connections import count_connections

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/net")


def check_count(listening: socket.socket, family: int, address: object) -> None:
    assert count_connections(listening) == 0
    with socket.socket(family) as first, socket.socket(family) as second:
        first.connect(address)  # type: ignore[arg-type]
        second.connect(address)  # type: ignore[arg-type]
        assert count_connections(listening) == 2  # in the backlog
        accepted, _ = listening.accept()
        assert count_connections(listening) == 2
        other, _ = listening.accept()
        first.close()
        accepted.close()
        wait_count(listening, 1)
        # The client has closed its end, but the server still has an answer to send.
        second.close()
        if family != socket.AF_UNIX:
            wait_count(listening, 1)
        other.close()
    wait_count(listening, 0)


def wait_count(listening: socket.socket, wanted: int) -> None:
    until = time.monotonic() + 30
    while (found := count_connections(listening)) != wanted:
        assert time.monotonic() < until, found
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_tcp(family: int, host: str) -> None:
    try:
        listening = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"no {host} here")
    with listening:
        check_count(listening, family, listening.getsockname()[:2])


def test_unix(tmp_path: Path) -> None:
    path = f"/tmp/count-{tmp_path.name} with a space"
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen(5)
            check_count(listening, socket.AF_UNIX, path)
    finally:
        Path(path).unlink(missing_ok=True)


def test_abstract_unix() -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0count-{time.monotonic_ns()}")
        listening.listen(5)
        check_count(listening, socket.AF_UNIX, listening.getsockname())


def test_what_is_not_listening_anywhere_is_unknown() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as closed:
        pass
    assert count_connections(closed) is None
