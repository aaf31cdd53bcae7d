"""Notifying a service manager, over real sockets and with a real file."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_supervisor.process.notify.sd_notify import parse_fields
from trio_supervisor.process.notify.service_manager import ServiceManager, keep_watchdog
from trio_supervisor.testing import in_virtual_time


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Check that the test leaks no descriptor."""
    before = set(os.listdir("/dev/fd"))
    yield
    # A thread that an earlier test has left may close one of its own meanwhile.
    assert set(os.listdir("/dev/fd")) <= before


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address for NOTIFY_SOCKET."""
    if request.param == "abstract":
        yield f"@trio-supervisor-test-{os.getpid()}"
    else:
        with tempfile.TemporaryDirectory(prefix="ts") as directory:
            yield os.path.join(directory, "notify")


@pytest.fixture
def receiver(address: str) -> Iterator[socket.socket]:
    """The manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(30)
        receiver.bind(address.replace("@", "\0"))
        yield receiver


def fields(receiver: socket.socket) -> dict[str, str]:
    return parse_fields(receiver.recv(4096))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("say", "expected"),
    [
        (lambda m: m.ready(), {"READY": "1"}),
        (
            lambda m: m.ready("4 workers", size=4),
            {"READY": "1", "STATUS": "4 workers"},
        ),
        (lambda m: m.reloaded("again"), {"READY": "1", "STATUS": "again"}),
        (lambda m: m.stopping(), {"STOPPING": "1"}),
        (lambda m: m.stopping("bye"), {"STOPPING": "1", "STATUS": "bye"}),
        (lambda m: m.status("3 of 4"), {"STATUS": "3 of 4"}),
        (lambda m: m.extend_timeout(1.5), {"EXTEND_TIMEOUT_USEC": "1500000"}),
        (lambda m: m.watchdog(), {"WATCHDOG": "1"}),
        (lambda m: m.unstore("a.b"), {"FDSTOREREMOVE": "1", "FDNAME": "a.b"}),
    ],
)
def test_service_manager_sends_one_datagram_each(
    address: str,
    receiver: socket.socket,
    say: Callable[[ServiceManager], bool],
    expected: dict[str, str],
) -> None:
    assert say(ServiceManager.from_environment({"NOTIFY_SOCKET": address}))
    assert fields(receiver) == expected


def test_reloading_sends_monotonic_time(address: str, receiver: socket.socket) -> None:
    """In microseconds of the clock that systemd uses."""
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    ServiceManager(address).reloading("new code")
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    found = fields(receiver)
    assert before <= int(found.pop("MONOTONIC_USEC")) <= after
    assert found == {"RELOADING": "1", "STATUS": "new code"}


def test_status_cannot_inject_variables(address: str, receiver: socket.socket) -> None:
    """The status may contain text of a worker."""
    ServiceManager(address).status("a\nREADY=1\r\0b" + 9000 * "x")
    found = fields(receiver)
    assert found.keys() == {"STATUS"}
    assert found["STATUS"].startswith("a READY=1  b")
    assert len(found["STATUS"]) == 2000


def test_store_sends_descriptor(address: str, receiver: socket.socket) -> None:
    read, write = os.pipe()
    assert ServiceManager(address).store("pipe", read)
    data, [received], _, _ = socket.recv_fds(receiver, 4096, 2)
    os.write(write, b"through")
    assert parse_fields(data) == {"FDSTORE": "1", "FDNAME": "pipe", "FDPOLL": "0"}
    assert os.read(received, 99) == b"through"
    for descriptor in (read, write, received):
        os.close(descriptor)


@pytest.mark.parametrize("name", ["", "a:b", "a\nREADY=1", "ä", 256 * "x"])
def test_store_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="255 ASCII characters"):
        ServiceManager().store(name, 0)
    with pytest.raises(ValueError, match="255 ASCII characters"):
        ServiceManager().unstore(name)


def test_store_closed_descriptor_is_refused(
    address: str, receiver: socket.socket
) -> None:
    with pytest.raises(ValueError, match="not open"):
        ServiceManager(address).store("name", 99_999)


def test_notify_does_not_wait_for_busy_manager(
    address: str, receiver: socket.socket
) -> None:
    """The caller gets False, and may repeat it."""
    manager = ServiceManager(address)
    while manager.watchdog():
        pass
    assert fields(receiver) == {"WATCHDOG": "1"}
    assert manager.watchdog()


def test_notify_missing_manager_is_logged_once(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    manager = ServiceManager(address)
    for say in (manager.ready, manager.stopping, manager.watchdog):
        assert say()
    [record] = caplog.records
    assert f"cannot notify {address}" in record.getMessage()


def test_notify_without_manager_does_nothing(tmp_path: Path) -> None:
    manager = ServiceManager.from_environment({"NOTIFY_SOCKET": "", "NOTIFY_LOG": ""})
    for say in (manager.ready, manager.reloading, manager.stopping, manager.watchdog):
        assert say()
    assert manager.store("name", 0)
    assert manager.watchdog_interval is None


def test_notify_log_contains_ready_as_text(tmp_path: Path) -> None:
    """Readers search the lines for ``"ready":true``, without spaces."""
    path = tmp_path / "notify.log"
    manager = ServiceManager.from_environment({"NOTIFY_LOG": str(path)})
    manager.status("Initializing...")
    manager.ready("Running with 4 children.", size=4)
    manager.watchdog()
    manager.extend_timeout(1)
    manager.reloading()
    manager.reloaded(size=5)
    manager.stopping()
    assert path.read_text().splitlines() == [
        '{"status":"Initializing..."}',
        '{"ready":true,"size":4,"status":"Running with 4 children."}',
        '{"ready":false,"reloading":true,"status":"Reloading..."}',
        '{"ready":true,"size":5}',
        '{"stopping":true}',
    ]


def test_notify_log_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "notify.log"
    path.write_text('{"status":"earlier"}\n')
    ServiceManager(notify_log=str(path)).ready()
    assert lines(path) == [{"status": "earlier"}, {"ready": True}]


def test_notify_socket_and_log_get_the_same(
    tmp_path: Path, address: str, receiver: socket.socket
) -> None:
    path = tmp_path / "notify.log"
    environ = {"NOTIFY_SOCKET": address, "NOTIFY_LOG": str(path)}
    ServiceManager.from_environment(environ).ready("ja")
    assert fields(receiver) == {"READY": "1", "STATUS": "ja"}
    assert lines(path) == [{"ready": True, "status": "ja"}]


@pytest.mark.parametrize("kind", ["directory", "missing", "pipe"])
def test_notify_log_failure_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Opening a FIFO without a reader would block forever."""
    path = tmp_path / "x" if kind == "pipe" else tmp_path
    if kind == "missing":
        path = tmp_path / "no" / "such"
    elif kind == "pipe":
        os.mkfifo(path)
    manager = ServiceManager(notify_log=str(path))
    assert manager.ready()
    assert manager.stopping()
    [record] = caplog.records
    assert "cannot write NOTIFY_LOG" in record.getMessage()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        pytest.param({"WATCHDOG_USEC": "30000000"}, 15.0, id="for anyone"),
        pytest.param(
            {"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())},
            0.25,
            id="for us",
        ),
        pytest.param(
            {"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None, id="for another"
        ),
        pytest.param({"WATCHDOG_USEC": "0"}, None, id="zero"),
        pytest.param({"WATCHDOG_USEC": "often"}, None, id="no number"),
        pytest.param({}, None, id="none"),
    ],
)
def test_watchdog_interval_is_half_of_required(
    environ: dict[str, str], interval: float | None
) -> None:
    assert ServiceManager.from_environment(environ).watchdog_interval == interval


class Watched(ServiceManager):
    """Records the times of heartbeats."""

    def __init__(self, interval: float) -> None:
        super().__init__(watchdog_interval=interval)
        self.told: list[float] = []

    def watchdog(self) -> bool:
        """Note the time."""
        self.told.append(trio.current_time())
        return True


@in_virtual_time
async def test_keep_watchdog_sends_after_each_check_in_time() -> None:
    """The duration of a check is not added to the interval."""
    manager = Watched(interval=10)
    with trio.move_on_after(35):
        await keep_watchdog(manager, partial(trio.sleep, 3))
    assert manager.told == [3, 13, 23, 33]


@in_virtual_time
async def test_keep_watchdog_hanging_check_sends_nothing() -> None:
    manager = Watched(interval=10)

    async def check() -> None:
        if manager.told:
            await trio.sleep_forever()

    with trio.move_on_after(1000):
        await keep_watchdog(manager, check)
    assert manager.told == [0]


@in_virtual_time
async def test_keep_watchdog_failing_check_sends_nothing() -> None:
    manager = Watched(interval=10)

    async def check() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await keep_watchdog(manager, check)
    assert manager.told == []


@in_virtual_time
async def test_keep_watchdog_without_watchdog_checks_nothing() -> None:
    async def check() -> None:
        pytest.fail("it was called")

    await keep_watchdog(ServiceManager(), check)
