"""sd_notify(3) over real datagram sockets, from this process and from another."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.process.notify import (
    Notification,
    Notifier,
    NotifySocket,
    open_notify_socket,
    parse_fields,
)


@asynccontextmanager
async def open_both(
    directory: Path,
) -> AsyncIterator[tuple[NotifySocket, Notifier]]:
    async with open_notify_socket(str(directory)) as receiver:
        with Notifier(receiver.path) as notifier, trio.fail_after(30):
            yield receiver, notifier


def send_raw(path: str, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(data, path)


def notification(text: str) -> Notification:
    return Notification(process_id=1, fields=parse_fields(text.encode()))


@pytest.mark.parametrize(
    ("text", "is_ready", "is_heartbeat", "is_stopping", "status"),
    [
        ("READY=1", True, False, False, None),
        ("WATCHDOG=1", False, True, False, None),
        ("STOPPING=1", False, False, True, None),
        ("STATUS=3 jobs", False, False, False, "3 jobs"),
        ("READY=1\nSTATUS=a=b\nWATCHDOG=1", True, True, False, "a=b"),
        ("READY=0", False, False, False, None),
        ("READY=", False, False, False, None),
        ("ready=1", False, False, False, None),
    ],
)
async def test_what_a_process_says_arrives(
    tmp_path: Path,
    text: str,
    is_ready: bool,
    is_heartbeat: bool,
    is_stopping: bool,
    status: str | None,
) -> None:
    async with open_both(tmp_path) as (receiver, notifier):
        assert notifier.send(text)
        received = await receiver.receive()
        assert received.is_ready == is_ready
        assert received.is_heartbeat == is_heartbeat
        assert received.is_stopping == is_stopping
        assert received.status == status
        assert received.process_id == os.getpid()


async def test_the_sender_is_named_by_the_kernel(tmp_path: Path) -> None:
    """Not by what it says of itself."""
    program = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "s.sendto(b'READY=1\\nMAINPID=1', sys.argv[1])\n"
        "print(os.getpid())\n"
    )
    async with open_both(tmp_path) as (receiver, _):
        done = await trio.run_process(
            [sys.executable, "-c", program, receiver.path], capture_stdout=True
        )
        assert (await receiver.receive()).process_id == int(done.stdout)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"READY=1\n" + 4089 * b"x", id="one byte too long"),
        pytest.param(b"READY=1\n" + 60_000 * b"x", id="far too long"),
    ],
)
async def test_a_datagram_that_is_too_long_is_dropped(
    tmp_path: Path, bad: bytes
) -> None:
    """Whole: half of what was said may mean something else."""
    async with open_both(tmp_path) as (receiver, notifier):
        send_raw(receiver.path, bad)
        notifier.send("STATUS=next")
        assert (await receiver.receive()).status == "next"


async def test_the_longest_datagram_is_taken(tmp_path: Path) -> None:
    async with open_both(tmp_path) as (receiver, _):
        send_raw(receiver.path, b"READY=1\n" + 4088 * b"x")
        assert (await receiver.receive()).is_ready


@pytest.mark.parametrize(
    "garbage", [b"", b"\0\xff\xfe", b"\n\n=\n=1", b"no variable", 100 * b"\n"]
)
async def test_garbage_says_nothing_and_breaks_nothing(
    tmp_path: Path, garbage: bytes
) -> None:
    async with open_both(tmp_path) as (receiver, notifier):
        send_raw(receiver.path, garbage)
        received = await receiver.receive()
        assert not received.is_ready
        assert not received.is_heartbeat
        assert received.status is None
        notifier.send("READY=1")
        assert (await receiver.receive()).is_ready


@given(st.binary(max_size=200))
def test_any_bytes_can_be_parsed(data: bytes) -> None:
    for name, value in parse_fields(data).items():
        assert name
        assert "\n" not in name + value
    status = Notification(process_id=1, fields=parse_fields(b"STATUS=" + data)).status
    assert status is not None
    assert status.isprintable()


def test_a_status_is_one_line_of_bounded_length() -> None:
    """It goes to terminals: no escape sequences either."""
    assert notification("STATUS=a\x1b[31mb\tc").status == "a [31mb c"
    assert notification("STATUS=" + 1000 * "x").status == 200 * "x"


async def test_a_full_queue_refuses_and_takes_again(tmp_path: Path) -> None:
    """A worker that cannot send a heartbeat now must not block for it."""
    async with open_both(tmp_path) as (receiver, notifier):
        sent = 0
        while notifier.send(f"STATUS={sent}"):
            sent += 1
        assert sent > 0
        for number in range(sent):  # none of those that went off is lost
            assert (await receiver.receive()).status == str(number)
        assert notifier.send("READY=1")
        assert (await receiver.receive()).is_ready


async def test_nobody_listening_is_no_failure(tmp_path: Path) -> None:
    """Trying again would be of no use."""
    async with open_notify_socket(str(tmp_path)) as receiver:
        notifier = Notifier(receiver.path)
    with notifier:
        assert notifier.send("READY=1")  # nobody reads the socket
        os.unlink(receiver.path)
        assert notifier.send("READY=1")  # there is none


def test_without_a_path_nothing_is_sent() -> None:
    with Notifier(None) as notifier:
        assert notifier.send("READY=1")


def test_after_its_end_nothing_is_sent() -> None:
    notifier = Notifier("/nowhere")
    with notifier:
        pass
    assert notifier.send("READY=1")


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_an_abstract_address_is_reached() -> None:
    """Systemd's own NOTIFY_SOCKET may start with an at sign."""
    name = f"trio_supervisor-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        with Notifier(f"@{name}") as notifier:
            assert notifier.send("READY=1")
        assert receiver.recv(100) == b"READY=1"


async def test_a_cancelled_receive_loses_nothing(tmp_path: Path) -> None:
    async with open_both(tmp_path) as (receiver, notifier):
        notifier.send("STATUS=kept")
        with trio.CancelScope() as scope:
            scope.cancel()
            await receiver.receive()
        assert scope.cancelled_caught
        assert (await receiver.receive()).status == "kept"


async def test_what_is_there_already_can_be_had_without_waiting() -> None:
    """A process's last words, when its end is noticed."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        async with open_notify_socket(directory) as notify:
            assert notify.receive_now() == []
            with Notifier(notify.path) as notifier:
                assert notifier.send("READY=1")
                assert notifier.send("STATUS=last words")
            first, second = notify.receive_now()
            assert first.is_ready
            assert second.status == "last words"
            assert notify.receive_now() == []
