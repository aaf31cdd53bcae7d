"""Listening sockets, real ones: bound, refused, handed over, changed, and closed."""

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
    """A directory whose path is short: pytest's own leave little room."""
    with tempfile.TemporaryDirectory(prefix="ts") as name:
        yield Path(name)


@pytest.fixture
def path(directory: Path) -> str:
    """Where to listen."""
    return str(directory / "web.sock")


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Whatever a test does, it ends with the descriptors that it began with."""
    before = descriptors()
    yield
    assert descriptors() == before


async def test_a_free_port_is_told() -> None:
    async with open_sockets({"web": ANYWHERE}) as sockets:
        assert sockets.addresses["web"].startswith("127.0.0.1:")
        address = sockets.addresses["web"]
        assert port_of(sockets) > 0
        assert can_connect(address)
    assert not can_connect(address)


async def test_all_workers_share_one_socket_which_programs_can_block_on() -> None:
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
async def test_an_address_means_what_it_says(url: str, answers: list[str]) -> None:
    """An IPv6 address is IPv6 alone; no host is both; a name is IPv4 where it can."""
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
async def test_a_name_is_the_first_of_its_addresses_that_is_here(
    addresses: list[str], listens_at: str
) -> None:
    trio.socket.set_custom_hostname_resolver(Hosts(*addresses))
    async with open_sockets({"web": Listen("tcp://shop.example:0")}) as sockets:
        assert sockets.addresses["web"].startswith(listens_at)


async def test_a_port_in_use_is_refused_and_its_holder_named() -> None:
    """And what was bound before it in the same set is given back."""
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
    assert message.startswith(f"cannot listen at 127.0.0.1:{port}: ")
    assert f"(process {holder.pid}) listens there; stop it" in message
    assert caught.value.exit_code == 16


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("tcp://no-such-host.invalid:80", "nobody knows the host"),
        ("tcp://203.0.113.1:0", "no interface of this machine has that address"),
        ("unix:///no/such/directory/x", "No such file or directory"),
        (f"unix:///{'x' * MAX_PATH}", f"more than {MAX_PATH} bytes"),
    ],
)
async def test_what_cannot_be_bound_is_an_error_that_says_why(
    url: str, says: str
) -> None:
    with pytest.raises(ListenError, match=says):
        async with open_sockets({"first": ANYWHERE, "web": Listen(url)}):
            pytest.fail("it was bound")


@pytest.mark.skipif(os.getuid() == 0, reason="root may have any port")
async def test_a_port_of_the_privileged_says_what_it_takes() -> None:
    with pytest.raises(ListenError, match="CAP_NET_BIND_SERVICE"):
        async with open_sockets({"web": Listen("tcp://127.0.0.1:80")}):
            pytest.fail("it was bound")


async def test_a_connection_that_lingers_does_not_hold_the_port() -> None:
    """The side that closes first is left in TIME_WAIT, at this very address."""
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
async def test_a_socket_file_has_its_mode_whatever_the_umask(
    path: str, mode: int, mask: int
) -> None:
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
async def test_a_socket_file_has_its_user_and_group(path: str) -> None:
    """By number, and by name; a group alone makes the socket its members', too."""
    nobody = pwd.getpwnam("nobody")
    for user, group in (("nobody", nobody.pw_gid), (nobody.pw_uid, None)):
        listen = Listen(f"unix://{path}", user=user, group=group, mode=0o600)
        async with open_sockets({"web": listen}):
            gid = os.getegid() if group is None else group
            assert owners(path) == (nobody.pw_uid, gid, 0o600)


async def test_a_socket_file_of_a_group_may_be_used_by_its_members(path: str) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    async with open_sockets({"web": Listen(f"unix://{path}", group=group)}):
        assert owners(path) == (os.geteuid(), os.getegid(), 0o660)


@pytest.mark.parametrize("field", ["user", "group"])
async def test_an_unknown_owner_is_named(path: str, field: str) -> None:
    """When it is bound, and before a change is made; nothing is left of it."""
    listen = Listen(f"unix://{path}", **{field: "no-such-name"})  # type: ignore[arg-type]
    problem = f"cannot listen at unix:{path}: there is no {field} 'no-such-name'"
    with pytest.raises(ListenError, match=problem):
        async with open_sockets({"web": listen}):
            pytest.fail("it was bound")
    assert not exists(path)
    async with open_sockets({"web": Listen(f"unix://{path}")}) as sockets:
        with pytest.raises(ListenError, match=problem):
            async with sockets.change({"web": listen}):
                pytest.fail("it was changed")


async def test_nothing_is_left_of_a_socket_file(path: str, directory: Path) -> None:
    async with open_sockets({"web": Listen(f"unix://{path}")}) as sockets:
        assert sockets.addresses == {"web": f"unix:{path}"}
        assert can_connect(f"unix:{path}")
    assert os.listdir(directory) == []


async def test_a_stale_file_is_taken_over(path: str, directory: Path) -> None:
    """Of a controller that was killed, also while it made its own."""
    for name in (path, f"{path}~"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(name)
    os.close(os.open(f"{path}.lock", os.O_CREAT, 0o600))
    async with open_sockets({"web": Listen(f"unix://{path}")}):
        assert can_connect(f"unix:{path}")
    assert os.listdir(directory) == []


async def test_a_living_server_is_never_replaced(path: str) -> None:
    with listening(path), pytest.raises(ListenError) as caught:
        async with open_sockets({"web": Listen(f"unix://{path}")}):
            pytest.fail("it was bound")
    assert f"process {os.getpid()} serves there; stop it" in str(caught.value)
    assert exists(path)


async def test_of_two_controllers_the_second_is_refused(path: str) -> None:
    """By the lock: it is asked before anybody looks at the file."""
    async with open_sockets({"web": Listen(f"unix://{path}")}):
        os.unlink(path)
        with pytest.raises(ListenError, match="another controller serves there"):
            async with open_sockets({"web": Listen(f"unix://{path}")}):
                pytest.fail("it was bound")


async def test_a_file_that_is_no_socket_is_never_touched(path: str) -> None:
    with open(path, "w") as file:  # noqa: ASYNC230 (a few bytes)
        file.write("precious")
    with pytest.raises(ListenError, match="no socket"):
        async with open_sockets({"web": Listen(f"unix://{path}")}):
            pytest.fail("it was bound")
    assert os.stat(path).st_size == len("precious")


async def test_the_file_of_somebody_else_is_left_at_the_end(path: str) -> None:
    """Ours was removed meanwhile, and another made at its place."""
    async with open_sockets({"web": Listen(f"unix://{path}")}):
        os.unlink(path)
        other = socket.socket(socket.AF_UNIX)
        other.bind(path)
    with other:
        assert exists(path)


async def test_a_server_that_tidies_up_removes_nothing_of_ours(path: str) -> None:
    """asyncio's, from 3.13 on, unlinks the file that its socket is named after."""

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


async def test_with_reuse_port_each_worker_has_a_socket_of_its_own() -> None:
    """At one address, made when it is first asked for, and kept over restarts."""
    async with open_sockets({"web": EACH}) as sockets:
        first, second = only(sockets, index=0), only(sockets, index=1)
        assert inode(first) != inode(second)
        assert only(sockets, index=0) == first
        assert name_of(first) == name_of(second) == ("127.0.0.1", port_of(sockets))


async def test_with_reuse_port_every_connection_finds_a_worker() -> None:
    """What holds the address takes none, nor does what was released."""
    async with open_sockets({"web": EACH}) as sockets:
        assert not can_connect(sockets.addresses["web"])
        with socket.socket(fileno=os.dup(only(sockets, index=1))) as listener:
            only(sockets, index=0)
            sockets.release(["web"], 0)
            listener.settimeout(30)
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", port_of(sockets))):
                    listener.accept()[0].close()


async def test_with_reuse_port_a_strangers_port_is_still_refused() -> None:
    """The kernel would let us share it, and give away every other connection."""
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        url = f"tcp://127.0.0.1:{stranger.getsockname()[1]}"
        with pytest.raises(ListenError, match="this process itself listens there"):
            async with open_sockets({"web": Listen(url, reuse_port=True)}):
                pytest.fail("it was bound")


async def test_with_reuse_port_all_interfaces_are_so_for_each_worker() -> None:
    everywhere = Listen("tcp://*:0", reuse_port=True)
    async with open_sockets({"web": everywhere}) as sockets:
        only(sockets)
        port = port_of(sockets)
        assert can_connect(f"127.0.0.1:{port}")
        assert can_connect(f"[::1]:{port}")


async def test_a_change_keeps_what_stays_and_closes_what_goes_last(
    path: str,
) -> None:
    """Also under another name; in between, both sets are open."""
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


async def test_a_change_that_is_given_up_leaves_all_as_it_was(path: str) -> None:
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


async def test_an_error_after_the_commit_takes_nothing_back() -> None:
    async def change_and_fail(sockets: SocketSet) -> None:
        async with sockets.change({"web": ANYWHERE}) as change:
            change.commit()
            raise KeyError

    async with open_sockets({}) as sockets:
        with pytest.raises(KeyError):
            await change_and_fail(sockets)
        assert can_connect(sockets.addresses["web"])


async def test_a_change_that_cannot_be_bound_changes_nothing() -> None:
    with listening() as other:
        taken = Listen(f"tcp://127.0.0.1:{other.getsockname()[1]}")
        async with open_sockets({"web": ANYWHERE}) as sockets:
            before = inode(only(sockets))
            open_before = descriptors()
            with pytest.raises(ListenError, match="this process itself"):
                async with sockets.change({"more": ANYWHERE, "web": taken}):
                    pytest.fail("it was bound")
            assert descriptors() == open_before
            assert inode(only(sockets)) == before


async def test_a_free_port_is_kept_under_its_own_name_only() -> None:
    """Two of them differ in nothing but their names."""
    async with open_sockets({"a": ANYWHERE, "b": ANYWHERE}) as sockets:
        a, b = (inode(only(sockets, name)) for name in "ab")
        async with sockets.change({"b": ANYWHERE, "c": ANYWHERE}) as change:
            assert inode(only(change.sockets, "b")) == b
            assert inode(only(change.sockets, "c")) not in (a, b)


async def test_a_change_applies_a_mode_to_the_socket_that_stays(path: str) -> None:
    """At the commit, and not before."""
    async with open_sockets({"web": Listen(f"unix://{path}")}) as sockets:
        before = inode(only(sockets))
        wanted = {"web": Listen(f"unix://{path}", mode=0o666)}
        async with sockets.change(wanted) as change:
            assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
            change.commit()
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o666
        assert inode(only(sockets)) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_a_change_applies_owners_to_the_socket_that_stays(path: str) -> None:
    """And gives it back where none are named any more."""
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


async def test_a_change_applies_a_backlog_to_the_socket_that_stays(path: str) -> None:
    """Connections that nobody accepts are as many as it says, and one."""
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


async def test_worker_sockets_stay_over_a_change() -> None:
    async with open_sockets({"web": EACH}) as sockets:
        before = inode(only(sockets, index=3))
        async with sockets.change({"web": EACH}) as change:
            change.commit()
        assert inode(only(sockets, index=3)) == before


async def test_reuse_port_cannot_change_while_the_address_is_in_use() -> None:
    async with open_sockets({"web": ANYWHERE}) as sockets:
        with pytest.raises(ListenError, match="stop the controller and start it"):
            async with sockets.change({"web": EACH}):
                pytest.fail("it was bound")


async def test_a_cancellation_leaves_nothing_open(path: str) -> None:
    with trio.CancelScope() as scope:
        async with open_sockets({"a": Listen(f"unix://{path}")}) as sockets:
            scope.cancel()
            async with sockets.change({"b": ANYWHERE}):
                await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert not exists(path)
