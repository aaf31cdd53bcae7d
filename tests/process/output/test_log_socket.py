"""Test sending records over real sockets."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kits.log_services import open_log_socket, receive
from trio_supervisor.policy.log_target import parse_log_target
from trio_supervisor.process.output.blocks import Data
from trio_supervisor.process.output.log_socket import LogSocket, connected_socket
from trio_supervisor.process.output.records import packed


@contextmanager
def open_device(text: str) -> Iterator[LogSocket]:
    device = LogSocket(parse_log_target(text))
    try:
        yield device
    finally:
        device.close(device.descriptor)


def write_all(device: LogSocket, *records: bytes) -> None:
    """Write one item, as the thread of a destination does."""
    rest: Data = b"".join(map(packed, records))
    while rest:
        try:
            rest = memoryview(rest)[device.write(device.descriptor, [rest]) :]
        except BlockingIOError:
            select.select([], [device.descriptor], [])


def test_unix_record_is_a_datagram(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open_log_socket(path) as service, open_device(f"syslog:{path}") as device:
        assert device.count(packed(b"one\n2") + packed(b"")) == 2
        write_all(device, b"one\n2", b"two")
        assert [receive(service), receive(service)] == [b"one\n2", b"two"]


def test_unix_service_may_restart(tmp_path: Path) -> None:
    """Without an error, and with the same descriptor."""
    path = tmp_path / "log"
    with open_device(f"journald:{path}") as device:
        descriptor = device.descriptor
        for record in b"one", b"two":
            with open_log_socket(path) as service:
                write_all(device, record)
                assert receive(service) == record
        assert device.descriptor == descriptor
        with pytest.raises(FileNotFoundError):
            write_all(device, b"three")
        with open_log_socket(path) as service:
            write_all(device, b"three")
            assert receive(service) == b"three"


def test_unix_service_that_does_not_read(tmp_path: Path) -> None:
    """The records that it takes are counted; the others stay, and none is lost."""
    path, records = tmp_path / "log", [b"%04d" % number for number in range(2000)]
    item = b"".join(map(packed, records))
    with open_log_socket(path) as service, open_device(f"journald:{path}") as device:
        written = device.write(device.descriptor, [item])
        assert 0 < written < len(item)
        assert written % len(packed(records[0])) == 0
        with pytest.raises(BlockingIOError):
            device.write(device.descriptor, [item[written:]])
        assert not select.select([], [device.descriptor], [], 0)[1]
        found = []
        while written < len(item):
            found.append(receive(service))
            if select.select([], [device.descriptor], [], 0)[1]:
                written += device.write(device.descriptor, [item[written:]])
        while select.select([service], [], [], 0)[0]:
            found.append(receive(service))
    assert found == records


def test_journald_long_record_is_a_sealed_file(tmp_path: Path) -> None:
    path, record = tmp_path / "log", 600_000 * b"x"
    with open_log_socket(path) as service:
        with open_device(f"journald:{path}") as device:
            write_all(device, record)
            assert receive(service) == record
        with (
            open_device(f"syslog:{path}") as device,
            pytest.raises(OSError, match=r"Message too long|No buffer space"),
        ):
            write_all(device, record)


def test_udp_record_is_a_datagram_that_may_be_lost() -> None:
    """A refusal is about an earlier one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        service.settimeout(60)
        port = service.getsockname()[1]
        with open_device(f"syslog:udp://127.0.0.1:{port}") as device:
            write_all(device, b"one", b"two")
            assert [service.recv(100), service.recv(100)] == [b"one", b"two"]
            service.close()
            for _ in range(5):
                write_all(device, b"lost")


def test_tcp_records_have_their_length_before_them() -> None:
    records = [b"%d" % number * 5000 for number in range(1000)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with open_device(f"syslog:tcp://localhost:{port}") as device:
            item = b"".join(map(packed, records))
            written = device.write(device.descriptor, [item])
            assert 0 < written < len(item), "the peer does not read yet"
            service, _ = listener.accept()
            with service:
                data = b""
                while written < len(item):
                    data += service.recv(1 << 20)
                    if select.select([], [device.descriptor], [], 0)[1]:
                        written += device.write(device.descriptor, [item[written:]])
                device.close(device.descriptor)
                while more := service.recv(1 << 20):
                    data += more
    assert data == b"".join(b"%d %b" % (len(record), record) for record in records)


def test_tcp_service_may_restart() -> None:
    """The record after it has closed the connection is not lost."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with open_device(f"syslog:tcp://127.0.0.1:{port}") as device:
            for record in b"one", b"two":
                write_all(device, record)
                service, _ = listener.accept()
                with service:
                    assert service.recv(100) == b"3 " + record
                select.select([device.descriptor], [], [], 60)
            listener.close()
            with pytest.raises(ConnectionRefusedError):
                write_all(device, b"three")


def test_connected_socket_refused_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(path))
        service.listen()
        with pytest.raises(OSError, match="wrong type") as caught:
            connected_socket(parse_log_target(f"syslog:{path}"))
    assert caught.value.errno == errno.EPROTOTYPE
