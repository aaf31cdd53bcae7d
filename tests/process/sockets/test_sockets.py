"""Binding, sharing, changing and closing real listening sockets."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    name_of,
    only,
    port_of,
)
from trio_supervisor.application import Listen
from trio_supervisor.errors import ListenError
from trio_supervisor.process.sockets.sockets import SocketSet, open_sockets
from trio_supervisor.process.sockets.unix_files import MAX_PATH

EACH = Listen("tcp://127.0.0.1:0", reuse_port=True)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short path: those of pytest are too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="ts") as name:
        yield Path(name)


@pytest.fixture
def path(directory: Path) -> str:
    """Path of a socket file."""
    return str(directory / "web.sock")


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Check that the test leaks no descriptor."""
    before = descriptors()
    yield
    check_no_leak(before)


async def test_port_zero_is_replaced_by_the_port_in_use() -> None:
    async with open_sockets({"web": ANYWHERE}) as sockets:
        assert sockets.addresses["web"].startswith("127.0.0.1:")
        address = sockets.addresses["web"]
        assert port_of(sockets) > 0
        assert can_connect(address)
    assert not can_connect(address)


async def test_workers_share_one_blocking_socket() -> None:
    async with open_sockets({"web": ANYWHERE}) as sockets:
        assert only(sockets, index=0) == only(sockets, index=7)
        assert os.get_blocking(only(sockets))
        assert not os.get_inheritable(only(sockets))


@pytest.mark.parametrize(
    ("url", "answers"),
    [
        ("tcp://127.0.0.1:0", ["127.0.0.1"]),
        ("tcp://localhost:0", ["127.0.0.1"]),
        ("tcp://[::1]:0", ["[::1]"]),
        ("tcp://[::]:0", ["[::1]"]),
        ("tcp://0.0.0.0:0", ["127.0.0.1"]),
        ("tcp://*:0", ["127.0.0.1", "[::1]"]),
    ],
)
async def test_address_answers_on_declared_families(
    url: str, answers: list[str]
) -> None:
    """A literal IPv6 address is IPv6 only; no host is both; a name prefers IPv4."""
    async with open_sockets({"web": Listen(url)}) as sockets:
        port = port_of(sockets)
        found = [h for h in ("127.0.0.1", "[::1]") if can_connect(f"{h}:{port}")]
        assert found == answers


class Hosts(trio.abc.HostnameResolver):
    """A name server that knows one host."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        """Its addresses, in the order given."""
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                0,
                "",
                (address, port),
            )
            for address in self._addresses
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """Nothing."""
        raise NotImplementedError


@pytest.mark.parametrize(
    ("addresses", "listens_at"),
    [
        pytest.param(["::1", "127.0.0.1"], "127.0.0.1:", id="IPv4 where it can"),
        pytest.param(["::1"], "[::1]:", id="IPv6 where it must"),
        pytest.param(["203.0.113.1", "127.0.0.1"], "127.0.0.1:", id="one of ours"),
    ],
)
async def test_host_name_binds_first_local_address(
    addresses: list[str], listens_at: str
) -> None:
    trio.socket.set_custom_hostname_resolver(Hosts(*addresses))
    async with open_sockets({"web": Listen("tcp://shop.example:0")}) as sockets:
        assert sockets.addresses["web"].startswith(listens_at)


async def test_port_in_use_error_names_process() -> None:
    """Sockets bound before it in the same set are closed."""
    program = (
        "import socket, sys\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "print(s.getsockname()[1], flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(  # noqa: ASYNC220 (waits for its first line, and no longer)
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        port = int(holder.stdout.readline())
        url = f"tcp://127.0.0.1:{port}"
        with pytest.raises(ListenError) as caught:
            async with open_sockets({"first": ANYWHERE, "web": Listen(url)}):
                pytest.fail("it was bound")
        holder.communicate()
    message = str(caught.value)
    assert message.startswith(f"cannot listen on 127.0.0.1:{port}: port in use by ")
    assert f"(pid {holder.pid}); stop it" in message
    assert caught.value.exit_code == 16


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("tcp://no-such-host.invalid:80", "'no-such-host.invalid' cannot be resolved"),
        ("tcp://203.0.113.1:0", "no interface of this machine has this address"),
        ("unix:///no/such/directory/x", "No such file or directory"),
        (f"unix:///{'x' * MAX_PATH}", f"longer than {MAX_PATH} bytes"),
    ],
)
async def test_unbindable_address_error_names_cause(url: str, says: str) -> None:
    with pytest.raises(ListenError, match=says):
        async with open_sockets({"first": ANYWHERE, "web": Listen(url)}):
            pytest.fail("it was bound")


@pytest.mark.skipif(os.getuid() == 0, reason="root may have any port")
async def test_privileged_port_error_names_capability() -> None:
    with pytest.raises(ListenError, match="CAP_NET_BIND_SERVICE"):
        async with open_sockets({"web": Listen("tcp://127.0.0.1:80")}):
            pytest.fail("it was bound")


async def test_time_wait_connection_does_not_block_port() -> None:
    """The side that closes first stays in TIME_WAIT, at this address."""
    async with open_sockets({"web": ANYWHERE}) as sockets:
        address = sockets.addresses["web"]
        with socket.socket(fileno=os.dup(only(sockets))) as listener:
            client = socket.create_connection(("127.0.0.1", port_of(sockets)))
            server, _ = listener.accept()
            server.close()
            client.recv(1)
            client.close()
    async with open_sockets({"web": Listen(f"tcp://{address}")}) as sockets:
        assert can_connect(address)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
@pytest.mark.parametrize("mask", [0, 0o077, 0o777])
async def test_socket_file_mode_ignores_umask(path: str, mode: int, mask: int) -> None:
    old = os.umask(mask)
    try:
        async with open_sockets({"web": Listen(f"unix://{path}", mode=mode)}):
            assert stat.S_IMODE(os.lstat(path).st_mode) == mode
    finally:
        os.umask(old)


def owners(path: str) -> tuple[int, int, int]:
    found = os.lstat(path)
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_socket_file_has_declared_user_and_group(path: str) -> None:
    """By number and by name."""
    nobody = pwd.getpwnam("nobody")
    for user, group in (("nobody", nobody.pw_gid), (nobody.pw_uid, None)):
        listen = Listen(f"unix://{path}", user=user, group=group, mode=0o600)
        async with open_sockets({"web": listen}):
            gid = os.getegid() if group is None else group
            assert owners(path) == (nobody.pw_uid, gid, 0o600)


async def test_socket_file_of_group_is_usable_by_members(path: str) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    async with open_sockets({"web": Listen(f"unix://{path}", group=group)}):
        assert owners(path) == (os.geteuid(), os.getegid(), 0o660)


@pytest.mark.parametrize("field", ["user", "group"])
async def test_unknown_owner_error_names_it(path: str, field: str) -> None:
    """Both when it is bound and when a change is prepared; nothing is left behind."""
    listen = Listen(f"unix://{path}", **{field: "no-such-name"})  # type: ignore[arg-type]
    problem = f"cannot listen on unix:{path}: unknown {field} 'no-such-name'"
    with pytest.raises(ListenError, match=problem):
        async with open_sockets({"web": listen}):
            pytest.fail("it was bound")
    assert not exists(path)
    async with open_sockets({"web": Listen(f"unix://{path}")}) as sockets:
        with pytest.raises(ListenError, match=problem):
            async with sockets.change({"web": listen}):
                pytest.fail("it was changed")


async def test_socket_file_is_removed_at_the_end(path: str, directory: Path) -> None:
    async with open_sockets({"web": Listen(f"unix://{path}")}) as sockets:
        assert sockets.addresses == {"web": f"unix:{path}"}
        assert can_connect(f"unix:{path}")
    assert os.listdir(directory) == []


async def test_stale_socket_file_is_replaced(path: str, directory: Path) -> None:
    """Also the unfinished file of a controller that was killed while creating it."""
    for name in (path, f"{path}~"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(name)
    os.close(os.open(f"{path}.lock", os.O_CREAT, 0o600))
    async with open_sockets({"web": Listen(f"unix://{path}")}):
        assert can_connect(f"unix:{path}")
    assert os.listdir(directory) == []


async def test_socket_of_running_server_is_not_replaced(path: str) -> None:
    with listening(path), pytest.raises(ListenError) as caught:
        async with open_sockets({"web": Listen(f"unix://{path}")}):
            pytest.fail("it was bound")
    assert f"in use by pid {os.getpid()}; stop it" in str(caught.value)
    assert exists(path)


async def test_second_controller_is_refused_by_lock(path: str) -> None:
    """The lock is checked before the file."""
    async with open_sockets({"web": Listen(f"unix://{path}")}):
        os.unlink(path)
        with pytest.raises(ListenError, match="in use by another controller"):
            async with open_sockets({"web": Listen(f"unix://{path}")}):
                pytest.fail("it was bound")


async def test_regular_file_at_socket_path_is_not_touched(path: str) -> None:
    with open(path, "w") as file:  # noqa: ASYNC230 (a few bytes)
        file.write("precious")
    with pytest.raises(ListenError, match="not a socket"):
        async with open_sockets({"web": Listen(f"unix://{path}")}):
            pytest.fail("it was bound")
    assert os.stat(path).st_size == len("precious")


async def test_replaced_socket_file_is_not_removed(path: str) -> None:
    """The own file was removed, and another one created in its place."""
    async with open_sockets({"web": Listen(f"unix://{path}")}):
        os.unlink(path)
        other = socket.socket(socket.AF_UNIX)
        other.bind(path)
    with other:
        assert exists(path)


async def test_socket_file_survives_close_of_asyncio_server(path: str) -> None:
    """Since Python 3.13, asyncio unlinks the path that its socket is bound to."""

    async def serve_for_a_moment(descriptor: int) -> None:
        sock = socket.socket(fileno=os.dup(descriptor))
        server = await asyncio.start_unix_server(lambda _r, _w: None, sock=sock)
        server.close()
        await server.wait_closed()

    async with open_sockets({"web": Listen(f"unix://{path}")}) as sockets:
        number = only(sockets)
        await trio.to_thread.run_sync(
            lambda: asyncio.run(serve_for_a_moment(number)),
        )
        assert can_connect(f"unix:{path}")


async def test_reuse_port_gives_each_worker_its_own_socket() -> None:
    """At the same address; created on first use, and kept across restarts."""
    async with open_sockets({"web": EACH}) as sockets:
        first, second = only(sockets, index=0), only(sockets, index=1)
        assert inode(first) != inode(second)
        assert only(sockets, index=0) == first
        assert name_of(first) == name_of(second) == ("127.0.0.1", port_of(sockets))


async def test_reuse_port_every_connection_reaches_a_worker() -> None:
    """The reserving socket and released ones accept no connections."""
    async with open_sockets({"web": EACH}) as sockets:
        assert not can_connect(sockets.addresses["web"])
        with socket.socket(fileno=os.dup(only(sockets, index=1))) as listener:
            only(sockets, index=0)
            sockets.release(["web"], 0)
            listener.settimeout(30)
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", port_of(sockets))):
                    listener.accept()[0].close()


async def test_reuse_port_refuses_port_of_other_program() -> None:
    """Sharing it would lose connections to the other program."""
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        url = f"tcp://127.0.0.1:{stranger.getsockname()[1]}"
        with pytest.raises(ListenError, match="port in use by this process"):
            async with open_sockets({"web": Listen(url, reuse_port=True)}):
                pytest.fail("it was bound")


async def test_reuse_port_on_all_interfaces_for_each_worker() -> None:
    everywhere = Listen("tcp://*:0", reuse_port=True)
    async with open_sockets({"web": everywhere}) as sockets:
        only(sockets)
        port = port_of(sockets)
        assert can_connect(f"127.0.0.1:{port}")
        assert can_connect(f"[::1]:{port}")


async def test_change_keeps_unchanged_sockets_and_closes_removed_last(
    path: str,
) -> None:
    """Also under another name; until the commit, both sets are open."""
    async with open_sockets({"a": ANYWHERE, "b": Listen(f"unix://{path}")}) as sockets:
        a, b = sockets.addresses["a"], sockets.addresses["b"]
        kept = inode(only(sockets, "b"))
        wanted = {"c": Listen(f"unix://{path}"), "d": ANYWHERE}
        async with sockets.change(wanted) as change:
            assert inode(only(change.sockets, "c")) == kept
            d = change.sockets.addresses["d"]
            assert all(map(can_connect, [a, b, d]))
            assert set(sockets.addresses) == {"a", "b"}
            change.commit()
            assert not can_connect(a)
        assert sockets.addresses == {"c": b, "d": d}
        assert can_connect(b)
        assert can_connect(d)
    assert not exists(path)
    assert not can_connect(d)


async def test_change_without_commit_keeps_previous_sockets(path: str) -> None:
    async with open_sockets({"web": ANYWHERE}) as sockets:
        before = dict(sockets.addresses)
        wanted = {"web": Listen(f"unix://{path}"), "more": ANYWHERE}
        async with sockets.change(wanted) as change:
            more = change.sockets.addresses["more"]
            assert can_connect(f"unix:{path}")
        assert sockets.addresses == before
        assert can_connect(before["web"])
        assert not can_connect(more)
        assert not exists(path)


async def test_change_error_after_commit_reverts_nothing() -> None:
    async def change_and_fail(sockets: SocketSet) -> None:
        async with sockets.change({"web": ANYWHERE}) as change:
            change.commit()
            raise KeyError

    async with open_sockets({}) as sockets:
        with pytest.raises(KeyError):
            await change_and_fail(sockets)
        assert can_connect(sockets.addresses["web"])


async def test_change_bind_failure_keeps_previous_sockets() -> None:
    with listening() as other:
        taken = Listen(f"tcp://127.0.0.1:{other.getsockname()[1]}")
        async with open_sockets({"web": ANYWHERE}) as sockets:
            before = inode(only(sockets))
            open_before = descriptors()
            with pytest.raises(ListenError, match="this process"):
                async with sockets.change({"more": ANYWHERE, "web": taken}):
                    pytest.fail("it was bound")
            assert descriptors() == open_before
            assert inode(only(sockets)) == before


async def test_change_keeps_port_zero_under_same_name_only() -> None:
    """Two sockets on port 0 differ only in their names."""
    async with open_sockets({"a": ANYWHERE, "b": ANYWHERE}) as sockets:
        a, b = (inode(only(sockets, name)) for name in "ab")
        async with sockets.change({"b": ANYWHERE, "c": ANYWHERE}) as change:
            assert inode(only(change.sockets, "b")) == b
            assert inode(only(change.sockets, "c")) not in (a, b)


async def test_change_applies_mode_at_commit(path: str) -> None:
    """Not before the commit."""
    async with open_sockets({"web": Listen(f"unix://{path}")}) as sockets:
        before = inode(only(sockets))
        wanted = {"web": Listen(f"unix://{path}", mode=0o666)}
        async with sockets.change(wanted) as change:
            assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
            change.commit()
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o666
        assert inode(only(sockets)) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_change_applies_owners_at_commit(path: str) -> None:
    """A declaration without owners resets them."""
    ours = Listen(f"unix://{path}")
    theirs = Listen(f"unix://{path}", user=65534, group=65534)
    async with open_sockets({"web": ours}) as sockets:
        for listen, expected in (
            (theirs, (65534, 65534, 0o660)),
            (ours, (0, os.getegid(), 0o600)),
        ):
            async with sockets.change({"web": listen}) as change:
                change.commit()
            assert owners(path) == expected


async def test_change_applies_backlog_at_commit(path: str) -> None:
    """The kernel queues one connection more than the backlog."""
    async with open_sockets({"web": Listen(f"unix://{path}", backlog=9)}) as sockets:
        wanted = {"web": Listen(f"unix://{path}", backlog=1)}
        async with sockets.change(wanted) as change:
            change.commit()
        assert sockets.addresses["web"] == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as a, socket.socket(socket.AF_UNIX) as b:
            a.connect(path)
            b.connect(path)
            with socket.socket(socket.AF_UNIX) as c:
                c.setblocking(False)
                with pytest.raises(BlockingIOError):
                    c.connect(path)


async def test_change_keeps_worker_sockets() -> None:
    async with open_sockets({"web": EACH}) as sockets:
        before = inode(only(sockets, index=3))
        async with sockets.change({"web": EACH}) as change:
            change.commit()
        assert inode(only(sockets, index=3)) == before


async def test_change_of_reuse_port_is_refused() -> None:
    async with open_sockets({"web": ANYWHERE}) as sockets:
        with pytest.raises(ListenError, match="restart the controller"):
            async with sockets.change({"web": EACH}):
                pytest.fail("it was bound")


async def test_open_sockets_cancelled_leaves_nothing_open(path: str) -> None:
    with trio.CancelScope() as scope:
        async with open_sockets({"a": Listen(f"unix://{path}")}) as sockets:
            scope.cancel()
            async with sockets.change({"b": ANYWHERE}):
                await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert not exists(path)
