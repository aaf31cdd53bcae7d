"""Connecting over real sockets, including one with a full backlog."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import trio

from trio_supervisor.link.connect import connect_unix


@contextmanager
def listening(path: Path, backlog: int = 8) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(backlog)
        yield listener


def fill(path: Path, stack: ExitStack) -> None:
    """Fill the backlog of the socket."""
    with suppress(BlockingIOError):
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            stack.enter_context(connection)
            connection.setblocking(False)
            connection.connect(str(path))


async def test_connect_unix_sends_and_receives(tmp_path: Path) -> None:
    with listening(tmp_path / "s") as listener:
        async with await connect_unix(str(tmp_path / "s")) as stream:
            accepted, _ = listener.accept()
            with accepted:
                await stream.send_all(b"there")
                assert accepted.recv(10) == b"there"
                accepted.sendall(b"back")
                assert await stream.receive_some(10) == b"back"


async def test_connect_unix_waits_for_full_backlog(tmp_path: Path) -> None:
    """All workers and clients wait there while the supervisor is replaced."""
    path = tmp_path / "s"
    with listening(path, backlog=0) as listener, ExitStack() as stack:
        fill(path, stack)
        with trio.move_on_after(0.1) as scope:
            await connect_unix(str(path))
        assert scope.cancelled_caught

        async def connect_and_send() -> None:
            async with await connect_unix(str(path)) as stream:
                await stream.send_all(b"x")

        listener.setblocking(False)
        accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect_and_send)
                stack.close()  # those before it in the queue hang up
                data = b""
                while not data:
                    async with await accepting.accept() as accepted:
                        data = bytes(await accepted.receive_some(1))
        assert data == b"x"


async def test_connect_unix_cancelled_leaks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listening(path, backlog=0), ExitStack() as stack:
        fill(path, stack)
        before = set(os.listdir("/proc/self/fd"))
        with trio.move_on_after(0.05):
            await connect_unix(str(path))
        assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        pytest.param("nothing", FileNotFoundError, id="nothing there"),
        pytest.param("stale", ConnectionRefusedError, id="nobody listens any more"),
        pytest.param("file", ConnectionRefusedError, id="not a socket"),
        pytest.param("long", OSError, id="a path that is too long"),
    ],
)
async def test_connect_unix_without_server_raises_os_error(
    tmp_path: Path, kind: str, error: type[OSError]
) -> None:
    """A reconnecting worker retries after it; no descriptor is leaked."""
    path = tmp_path / ("x" * 200 if kind == "long" else "s")
    if kind == "stale":
        with listening(path):
            pass
    if kind == "file":
        path.touch()
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(error):
        await connect_unix(str(path))
    assert set(os.listdir("/proc/self/fd")) == before
