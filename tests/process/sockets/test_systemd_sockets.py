"""Adopting sockets of a service manager, with real descriptors and a real process."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.kits.sockets import (
    ANYWHERE,
    can_connect,
    check_no_leak,
    descriptors,
    exists,
    inode,
    listening,
    only,
)
from trio_supervisor.application import Listen
from trio_supervisor.errors import ListenError
from trio_supervisor.process.sockets.bind import bound_address
from trio_supervisor.process.sockets.sockets import open_sockets
from trio_supervisor.process.sockets.systemd_sockets import AdoptedDescriptors
from trio_supervisor.process.spawn.exec import spawn_exec


@pytest.fixture
def path() -> Iterator[str]:
    """A path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="ts") as name:
        yield str(Path(name, "web.sock"))


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Check that the test leaks no descriptor."""
    before = descriptors()
    yield
    check_no_leak(before)


def handed_over(*sockets: tuple[str, socket.socket]) -> AdoptedDescriptors:
    """Return descriptors as a service manager would pass them, with other numbers."""
    return AdoptedDescriptors([(name, os.dup(sock.fileno())) for name, sock in sockets])


def url(sock: socket.socket) -> Listen:
    """Return the address of *sock* as a declaration."""
    name = sock.getsockname()
    if isinstance(name, str):
        return Listen(f"unix://{name}")
    return Listen(f"tcp://{name[0]}:{name[1]}")


async def test_take_sockets_matches_by_name_at_any_address() -> None:
    """The unit file decides the address."""
    with listening() as theirs:
        adopted = handed_over(("web", theirs))
        async with open_sockets({"web": ANYWHERE}, adopted) as sockets:
            assert inode(only(sockets)) == inode(theirs.fileno())
            assert sockets.addresses["web"] == bound_address(theirs)
            assert not os.get_inheritable(only(sockets))


async def test_take_sockets_matches_by_address_with_any_name(
    path: str,
) -> None:
    """By default, systemd names sockets after their unit."""
    with listening() as tcp, listening(path) as unix:
        adopted = handed_over(("app.socket", tcp), ("app.socket", unix))
        listens = {"control": url(unix), "web": url(tcp)}
        async with open_sockets(listens, adopted) as sockets:
            assert inode(only(sockets, "web")) == inode(tcp.fileno())
            assert inode(only(sockets, "control")) == inode(unix.fileno())
            assert sockets.addresses["control"] == f"unix:{path}"


async def test_take_sockets_matches_resolved_host_name() -> None:
    with listening() as theirs:
        listens = {"web": Listen(f"tcp://localhost:{theirs.getsockname()[1]}")}
        async with open_sockets(listens, handed_over(("", theirs))) as sockets:
            assert inode(only(sockets)) == inode(theirs.fileno())


async def test_take_sockets_prefers_name_over_address() -> None:
    """Even if the first declared socket has the address of another one."""
    with listening() as theirs:
        listens = {"a": url(theirs), "b": ANYWHERE}
        with pytest.raises(ListenError, match="port in use by"):
            async with open_sockets(listens, handed_over(("b", theirs))):
                pytest.fail("a was bound")


async def test_take_sockets_same_name_is_decided_by_address() -> None:
    with listening() as one, listening() as two:
        adopted = handed_over(("web", one), ("web", two))
        async with open_sockets({"web": url(two)}, adopted) as sockets:
            assert inode(only(sockets)) == inode(two.fileno())


async def test_undeclared_descriptor_is_closed_with_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with listening() as theirs:
        adopted = handed_over(("old", theirs))
        async with open_sockets({"web": ANYWHERE}, adopted) as sockets:
            assert inode(only(sockets)) != inode(theirs.fileno())
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "no declared socket matches descriptor 'old'" in record.getMessage()
    assert "127.0.0.1:" in record.getMessage()


async def test_take_sockets_named_non_socket_raises_listen_error() -> None:
    """Binding another socket would hide the mistake in the unit file."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        adopted = handed_over(("web", datagrams))
        with pytest.raises(ListenError, match="not a listening stream socket"):
            async with open_sockets({"web": ANYWHERE}, adopted):
                pytest.fail("it was taken")


async def test_file_of_adopted_socket_is_not_removed(path: str) -> None:
    with listening(path) as theirs:
        async with open_sockets({"web": url(theirs)}, handed_over(("web", theirs))):
            pass
        assert can_connect(f"unix:{path}")
    assert exists(path)


async def test_workers_share_adopted_socket_despite_reuse_port() -> None:
    """Even with reuse_port: there is only one socket."""
    with listening() as theirs:
        listen = Listen("tcp://127.0.0.1:0", reuse_port=True)
        async with open_sockets({"web": listen}, handed_over(("web", theirs))) as taken:
            assert only(taken, index=0) == only(taken, index=5)


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"LISTEN_FDS": "1"}, id="no process"),
        pytest.param({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, id="another process"),
        pytest.param(
            {"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())}, id="no count"
        ),
        pytest.param({"LISTEN_FDS": "0", "LISTEN_PID": str(os.getpid())}, id="none"),
    ],
)
def test_from_environment_ignores_descriptors_of_others(
    environ: dict[str, str],
) -> None:
    adopted = AdoptedDescriptors.from_environment(environ)
    adopted.close()


_CONTROLLER = """
import os, sys, trio
from trio_supervisor.process.sockets.systemd_sockets import AdoptedDescriptors
from trio_supervisor.process.sockets.sockets import open_sockets
from trio_supervisor.application import Listen
adopted = AdoptedDescriptors.from_environment(os.environ)
print([os.get_inheritable(fd) for fd in (3, 4)])
async def main():
    listens = {"web": Listen("tcp://127.0.0.1:0")}
    async with open_sockets(listens, adopted) as sockets:
        print(sockets.addresses["web"])
        os.fstat(3)
        try:
            os.fstat(4)
        except OSError:
            print("the other is closed")
trio.run(main)
"""


async def test_controller_adopts_passed_sockets() -> None:
    """Passed by `spawn_exec`, which follows the same protocol as systemd."""
    read, write = os.pipe()
    with open(read) as reader, listening() as web, listening() as other:  # noqa: ASYNC230
        try:
            process = await spawn_exec(
                [sys.executable, "-c", _CONTROLLER],
                environment=os.environ,
                listen={"web": web.fileno(), "other": other.fileno()},
                stdout=write,
                stderr=subprocess.DEVNULL,
            )
        finally:
            os.close(write)
        with trio.fail_after(30):
            said = await trio.to_thread.run_sync(reader.read)
            assert await process.wait() == 0
        process.close()
        address = bound_address(web)
    assert said.splitlines() == ["[False, False]", address, "the other is closed"]


async def test_from_environment_closed_descriptor_ends_list() -> None:
    """If a wrapper closed it, the meaning of the others is unknown."""
    script = (
        "import logging, os, sys\n"
        "logging.basicConfig(stream=sys.stdout, format='%(message)s')\n"
        "from trio_supervisor.process.sockets import systemd_sockets as s\n"
        "os.closerange(3, 10)\n"
        "e = {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '2'}\n"
        "s.AdoptedDescriptors.from_environment(e).close()\n"
    )
    done = await trio.run_process([sys.executable, "-c", script], capture_stdout=True)
    expected = b"LISTEN_FDS: descriptor 3 is not open; ignoring it and later ones\n"
    assert done.stdout == expected
