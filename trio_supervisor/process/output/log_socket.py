"""Send records to a log service, and connect to it again when that is needed.

Used in the thread of a destination, so that it may block there for a while.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from contextlib import suppress
from typing import Any, Final

from attrs import define, field

from trio_supervisor.policy.log_target import LogTarget
from trio_supervisor.process.output.blocks import Data
from trio_supervisor.process.output.records import count_records, records_of

# For a name server and a host that do not answer [s].
_CONNECT_TIMEOUT: Final = 5.0
# After which data that a host has not acknowledged means that it is gone [ms].
_USER_TIMEOUT: Final = 30_000
# A datagram that is too long for the socket.
_TOO_LONG: Final = frozenset({errno.EMSGSIZE, errno.ENOBUFS})


@define(eq=False)
class LogSocket:
    """A connection to a log service, as the device of a destination.

    It keeps its descriptor over all connections.
    """

    target: LogTarget
    _socket: socket.socket = field(init=False)
    _is_connected: bool = field(default=False, init=False)
    _sent: int = field(default=0, init=False)
    """How much of the first record was sent on this connection. TCP only [bytes]."""

    def __attrs_post_init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    @property
    def descriptor(self) -> int:
        """The descriptor of the socket."""
        return self._socket.fileno()

    def count(self, data: Data) -> int:
        """Return the number of records in *data*."""
        return count_records(data)

    def write(self, descriptor: int, items: list[Data]) -> int:
        """Send as many whole records as the service takes; see `Device.write`."""
        written = 0
        try:
            for item in items:
                for record, size in records_of(item):
                    self._send(record)
                    written += size
        except OSError:
            if not written:
                raise
        return written

    def close(self, descriptor: int) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, record: Data) -> None:
        if self._is_connected:
            try:
                self._send_now(record)
            except BlockingIOError:
                raise
            except OSError:  # the service was restarted
                self._is_connected = False
            else:
                return
        self._connect()
        self._send_now(record)

    def _send_now(self, record: Data) -> None:
        match self.target.transport:
            case "tcp":
                self._send_framed(record)
            case "udp":
                try:
                    self._socket.send(record)
                except ConnectionRefusedError:  # about an earlier one; this is not sent
                    self._socket.send(record)
            case "unix":
                try:
                    self._socket.send(record)
                except OSError as exc:
                    if exc.errno not in _TOO_LONG or self.target.kind != "journald":
                        raise
                    self._send_file(record)

    def _send_framed(self, record: Data) -> None:
        """Send *record* with its length before it: octet counting of RFC 6587."""
        if not self._sent:
            self._check_open()
        frame = memoryview(b"%d %b" % (len(record), bytes(record)))
        while self._sent < len(frame):
            self._sent += self._socket.send(frame[self._sent :])
        self._sent = 0

    def _check_open(self) -> None:
        """Notice that the service has closed the connection, before more is lost."""
        with suppress(BlockingIOError):
            if not self._socket.recv(4096):
                raise ConnectionResetError(errno.ECONNRESET, "connection closed")

    def _send_file(self, record: Data) -> None:
        """Send *record* as a sealed file in memory, as sd_journal_send(3) does."""
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        with open(os.memfd_create("journal-entry", flags), "wb", buffering=0) as file:
            rest = memoryview(record)
            while rest:
                rest = rest[file.write(rest) :]
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
            socket.send_fds(self._socket, [b""], [file.fileno()])

    def _connect(self) -> None:
        self._sent = 0
        with connected_socket(self.target) as made:
            made.setblocking(False)
            os.dup2(made.fileno(), self._socket.fileno(), inheritable=False)
        self._is_connected = True


def connected_socket(target: LogTarget) -> socket.socket:
    """Return a socket that is connected to *target*. May block for some seconds.

    Raises:
        OSError: nothing listens there, or it may not be used.
    """
    if target.transport == "tcp":
        where = (target.host, target.port)
        made = socket.create_connection(where, _CONNECT_TIMEOUT)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT)
        return made
    if target.transport == "unix":
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        return _connected(made, target.path)
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, address = found[0]
    return _connected(socket.socket(family, kind, protocol), address)


def _connected(made: socket.socket, address: Any) -> socket.socket:
    try:
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made
