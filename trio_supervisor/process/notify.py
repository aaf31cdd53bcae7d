"""Readiness and heartbeats by datagrams: the sd_notify(3) protocol, both ends."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self

import trio
from attrs import define, field, frozen

# A status line, a few variables: systemd takes 4 KiB, and so do we.
_MAX_DATAGRAM: Final = 4096
_MAX_STATUS: Final = 200
_UCRED: Final = struct.Struct("3i")


@frozen(kw_only=True)
class Notification:
    """One datagram, checked to come from this user or root."""

    process_id: int
    fields: Mapping[str, str]

    @property
    def is_ready(self) -> bool:
        """READY=1."""
        return self.fields.get("READY") == "1"

    @property
    def is_unready(self) -> bool:
        """READY=0: a word of ours; sd_notify(3) knows no way back."""
        return self.fields.get("READY") == "0"

    @property
    def is_heartbeat(self) -> bool:
        """WATCHDOG=1."""
        return self.fields.get("WATCHDOG") == "1"

    @property
    def is_stopping(self) -> bool:
        """STOPPING=1."""
        return self.fields.get("STOPPING") == "1"

    @property
    def status(self) -> str | None:
        """STATUS=…, on one line and of printable characters."""
        if (text := self.fields.get("STATUS")) is None:
            return None
        return "".join(c if c.isprintable() else " " for c in text[:_MAX_STATUS])


def parse_fields(data: bytes) -> dict[str, str]:
    """Return the variables of a datagram; lines that are none are left out."""
    fields = {}
    for line in data.decode("utf-8", "replace").splitlines():
        name, equals, value = line.partition("=")
        if equals and name:
            fields[name] = value
    return fields


@define(eq=False)
class NotifySocket:
    """The receiving end; made by `open_notify_socket`."""

    path: str
    _socket: trio.socket.SocketType
    _plain: socket.socket
    """The same, for what is not to wait."""

    async def receive(self) -> Notification:
        """Wait for the next notification. A cancellation loses none.

        What comes from another user, or is too long, is dropped.
        """
        while True:
            data, ancillary, flags, _ = await self._socket.recvmsg(
                _MAX_DATAGRAM, socket.CMSG_SPACE(_UCRED.size)
            )
            if (found := _notification(data, ancillary, flags)) is not None:
                return found

    def receive_now(self) -> list[Notification]:
        """Return those that are there already.

        What a process says before it ends is there when its end is noticed.
        """
        found: list[Notification] = []
        while True:
            try:
                data, ancillary, flags, _ = self._plain.recvmsg(
                    _MAX_DATAGRAM, socket.CMSG_SPACE(_UCRED.size)
                )
            except OSError:  # none is left
                return found
            if (notification := _notification(data, ancillary, flags)) is not None:
                found.append(notification)


def _notification(
    data: bytes, ancillary: list[tuple[int, int, bytes]], flags: int
) -> Notification | None:
    if flags & socket.MSG_TRUNC:
        return None
    fields = parse_fields(data)
    process_id = _sender(ancillary, fields)
    if process_id is None:
        return None
    return Notification(process_id=process_id, fields=fields)


def _sender(
    ancillary: list[tuple[int, int, bytes]], fields: Mapping[str, str]
) -> int | None:
    if sys.platform != "linux":
        # No credentials there; the socket's directory is closed to other users.
        text = fields.get("MAINPID", "")
        return int(text) if text.isdecimal() else None
    for level, type_, data in ancillary:
        if level == socket.SOL_SOCKET and type_ == socket.SCM_CREDENTIALS:
            process_id, user, _ = _UCRED.unpack(data[: _UCRED.size])
            return process_id if user in (0, os.getuid()) else None
    return None


@asynccontextmanager
async def open_notify_socket(directory: str) -> AsyncIterator[NotifySocket]:
    """Receive notifications at ``DIRECTORY/notify`` for the length of the block.

    Args:
        directory: Closed to other users. The caller removes it.
    """
    path = os.path.join(directory, "notify")
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        if sys.platform == "linux":
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        await receiver.bind(path)
        # The same socket, by another descriptor: non-blocking, as trio has made it.
        with socket.socket(fileno=os.dup(receiver.fileno())) as plain:
            plain.setblocking(False)
            yield NotifySocket(path, receiver, plain)


@define(eq=False)
class Notifier:
    """The sending end, in the child. Never blocks, and never fails for good.

    A datagram that cannot be sent now (the receiver's queue is full) is refused, and
    the caller may try again.
    """

    path: str | None
    _socket: socket.socket | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if self.path:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, text: str) -> bool:
        """Send variables, as ``"READY=1"``; say whether they went off.

        True also where nobody listens any more: trying again would be of no use.
        """
        if self._socket is None or self.path is None:
            return True
        if sys.platform != "linux":
            text += f"\nMAINPID={os.getpid()}"
        address = "\0" + self.path[1:] if self.path.startswith("@") else self.path
        data = text.encode("utf-8", "replace")[:_MAX_DATAGRAM]
        try:
            self._socket.sendto(data, address)
        except BlockingIOError:
            return False
        except OSError:
            pass  # nobody is there, or may be reached by what we have become
        return True
