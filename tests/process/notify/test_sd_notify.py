"""sd_notify(3) over real datagram sockets, from this and from another process."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.process.notify.channel import BATCH, Channel, open_channel
from trio_supervisor.process.notify.sd_notify import (
    Notification,
    Notifier,
    kernel_address,
    open_notifier,
    parse_fields,
)

IS_LINUX = sys.platform == "linux"
KINDS = ["inherited", "path", *(["abstract"] if IS_LINUX else [])]
"""The socket that a process uses."""


class Receiver:
    """A controller's end, which accepts this process's own group."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.address = channel.address
        self._heard: list[Notification] = []

    def receive_now(self) -> list[Notification]:
        for receiver in self.channel.receivers:
            self._heard += receiver.receive_now(os.getpgrp())[0]
        heard, self._heard = self._heard, []
        return heard

    async def receive(self) -> Notification:
        while not self._heard:
            await trio.sleep(0.001)
            self._heard = self.receive_now()
        return self._heard.pop(0)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A path short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def open_both(
    directory: Path, kind: str = "path"
) -> AsyncIterator[tuple[Receiver, Notifier]]:
    is_ours = kind == "inherited"
    channel = open_channel(
        str(directory), is_ours=is_ours, is_abstract=kind == "abstract"
    )
    with channel:
        descriptors = [os.dup(each) for each in channel.descriptors]
        with open_notifier(channel.address, descriptors) as notifier:
            with trio.fail_after(30):
                yield Receiver(channel), notifier


def send_raw(address: str, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(data, kernel_address(address))


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
async def test_notification_arrives(
    tmp_path: Path,
    kind: str,
    text: str,
    is_ready: bool,
    is_heartbeat: bool,
    is_stopping: bool,
    status: str | None,
) -> None:
    async with open_both(tmp_path, kind) as (receiver, notifier):
        assert notifier.send(text)
        received = await receiver.receive()
        assert received.is_ready == is_ready
        assert received.is_heartbeat == is_heartbeat
        assert received.is_stopping == is_stopping
        assert received.status == status
        assert received.process_id == os.getpid()


def test_restart_reason_is_one_line_of_printable_characters() -> None:
    assert notification("RESTART=1000\trequests").restart_reason == "1000 requests"
    assert notification("RESTART=").restart_reason == ""
    assert notification("READY=1").restart_reason is None


async def test_sender_is_taken_from_kernel_credentials(tmp_path: Path) -> None:
    """A MAINPID in the datagram does not count."""
    program = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "s.sendto(b'READY=1\\nMAINPID=1', sys.argv[1])\n"
        "print(os.getpid())\n"
    )
    async with open_both(tmp_path, "path") as (receiver, _):
        done = await trio.run_process(
            [sys.executable, "-c", program, receiver.address], capture_stdout=True
        )
        assert (await receiver.receive()).process_id == int(done.stdout)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"READY=1\n" + 4089 * b"x", id="one byte too long"),
        pytest.param(b"READY=1\n" + 60_000 * b"x", id="far too long"),
    ],
)
async def test_too_long_datagram_is_dropped(tmp_path: Path, bad: bytes) -> None:
    """Completely: half of it could have another meaning."""
    async with open_both(tmp_path) as (receiver, notifier):
        send_raw(receiver.address, bad)
        notifier.send("STATUS=next")
        assert (await receiver.receive()).status == "next"


async def test_longest_datagram_is_accepted(tmp_path: Path) -> None:
    async with open_both(tmp_path) as (receiver, _):
        send_raw(receiver.address, b"READY=1\n" + 4088 * b"x")
        assert (await receiver.receive()).is_ready


@pytest.mark.parametrize(
    "garbage", [b"", b"\0\xff\xfe", b"\n\n=\n=1", b"no variable", 100 * b"\n"]
)
async def test_garbage_datagram_is_ignored(tmp_path: Path, garbage: bytes) -> None:
    async with open_both(tmp_path) as (receiver, notifier):
        send_raw(receiver.address, garbage)
        received = await receiver.receive()
        assert not received.is_ready
        assert not received.is_heartbeat
        assert received.status is None
        notifier.send("READY=1")
        assert (await receiver.receive()).is_ready


@given(st.binary(max_size=200))
def test_parse_fields_accepts_any_bytes(data: bytes) -> None:
    for name, value in parse_fields(data).items():
        assert name
        assert "\n" not in name + value
    status = Notification(process_id=1, fields=parse_fields(b"STATUS=" + data)).status
    assert status is not None
    assert status.isprintable()


def test_status_is_one_bounded_line() -> None:
    """Escape sequences are removed, since it is shown in terminals."""
    assert notification("STATUS=a\x1b[31mb\tc").status == "a [31mb c"
    assert notification("STATUS=" + 1000 * "x").status == 200 * "x"


async def test_send_to_full_queue_is_refused_then_accepted(
    tmp_path: Path, kind: str
) -> None:
    """A full queue must not block the worker."""
    async with open_both(tmp_path, kind) as (receiver, notifier):
        sent = 0
        while notifier.send(f"STATUS={sent}"):
            sent += 1
        assert sent > 0
        for number in range(sent):  # none of those that went off is lost
            assert (await receiver.receive()).status == str(number)
        assert notifier.send("READY=1")
        assert (await receiver.receive()).is_ready


async def test_send_without_controller_is_not_an_error(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A retry would be useless; the worker notices through its lifeline."""
    async with open_both(tmp_path, kind) as (receiver, notifier):
        for end in receiver.channel.receivers:
            end.socket.close()
        assert notifier.send("READY=1")
        assert not caplog.records


def test_send_failure_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Notifier(str(tmp_path / "nothing")) as notifier:
        assert notifier.send("READY=1")
        assert notifier.send("READY=1")
    assert [record.getMessage() for record in caplog.records] == [
        "cannot send 'READY=1' to the controller: [Errno 2] No such file or directory"
    ]


async def test_send_after_all_descriptors_were_closed(
    tmp_path: Path,
) -> None:
    """As a daemonizing application does; heartbeats need no descriptor."""
    async with open_both(tmp_path, "inherited") as (receiver, notifier):
        assert notifier._inherited is not None
        os.close(notifier._inherited.detach())
        assert notifier.send("READY=1")
        assert (await receiver.receive()).is_ready
        notifier.beat()
        assert receiver.channel.heartbeat is not None
        assert receiver.channel.heartbeat.age() is not None


async def test_flood_at_one_channel_does_not_affect_others(tmp_path: Path) -> None:
    async with (
        open_both(tmp_path, "inherited") as (receiver, notifier),
        open_both(tmp_path, "inherited") as (_, flooding),
    ):
        while flooding.send("STATUS=x"):
            pass
        assert notifier.send("READY=1")
        assert (await receiver.receive()).is_ready


async def test_flood_is_received_in_batches(tmp_path: Path, kind: str) -> None:
    async with open_both(tmp_path, kind) as (receiver, notifier):
        while notifier.send("STATUS=x"):
            pass
        for end in receiver.channel.receivers:
            found, is_more = end.receive_now(os.getpgrp())
            assert len(found) == BATCH * is_more


async def test_notification_of_unrelated_process_is_dropped(tmp_path: Path) -> None:
    """A running process that is neither the child nor in its group."""
    channel = open_channel(str(tmp_path), is_ours=False)
    with channel:
        send_raw(channel.address, b"READY=1")
        assert channel.receivers[0].receive_now(1) == ([], False)


@pytest.mark.skipif(not IS_LINUX, reason="no credentials elsewhere")
async def test_notification_of_exited_helper_is_accepted() -> None:
    """systemd-notify in a shell script may exit before its datagram is read."""
    channel = open_channel("", is_ours=False)
    program = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "s.sendto(b'READY=1', '\\0' + sys.argv[1][1:])\n"
    )
    with channel:
        await trio.run_process([sys.executable, "-c", program, channel.address])
        [said], _ = channel.receivers[0].receive_now(1)
        assert said.is_ready


def test_receiver_recreates_removed_path(tmp_path: Path) -> None:
    directory = tmp_path / "ours"
    directory.mkdir()
    channel = open_channel(str(directory), is_ours=False, is_abstract=False)
    with channel:
        [receiver] = channel.receivers
        assert not receiver.restore(str(directory))
        shutil.rmtree(directory)
        assert receiver.restore(str(directory))
        send_raw(channel.address, b"READY=1")
        found, _ = receiver.receive_now(os.getpgrp())
        assert [each.is_ready for each in found] == [True]
        assert directory.stat().st_mode & 0o777 == 0o700
    assert list(directory.iterdir()) == []


@pytest.mark.skipif(not IS_LINUX, reason="abstract sockets are Linux's")
def test_channel_on_linux_creates_no_file(tmp_path: Path) -> None:
    with open_channel(str(tmp_path), is_ours=True) as channel:
        assert channel.address.startswith("@")
        assert list(tmp_path.iterdir()) == []


def test_channel_close_leaks_no_descriptor(tmp_path: Path) -> None:
    def descriptors() -> set[str]:
        return set(os.listdir("/dev/fd"))

    before = descriptors()
    channel = open_channel(str(tmp_path), is_ours=True)
    channel.keep()
    channel.close()
    channel.close()
    with open_channel(str(tmp_path), is_ours=True):
        pass
    assert descriptors() == before


def test_notifier_without_address_sends_nothing() -> None:
    with Notifier(None) as notifier:
        assert notifier.send("READY=1")


def test_notifier_after_close_sends_nothing() -> None:
    notifier = Notifier("/nowhere")
    with notifier:
        pass
    assert notifier.send("READY=1")


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_notifier_reaches_abstract_address() -> None:
    """NOTIFY_SOCKET of systemd may start with an at sign."""
    name = f"trio_supervisor-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        with Notifier(f"@{name}") as notifier:
            assert notifier.send("READY=1")
        assert receiver.recv(100) == b"READY=1"
