"""Send requests to a fork server, and receive its messages. The controller's side."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

import trio

_MAX_PACKET: Final = 8192


class DisconnectedError(Exception):
    """The connection to a fork server has closed."""


class ServerMessage(NamedTuple):
    """One packet of a fork server."""

    kind: bytes
    data: bytes
    descriptors: list[int]
    """Files that came with it; the receiver closes them."""

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)


async def receive_message(control: trio.socket.SocketType) -> ServerMessage:
    """Wait for the next message of a fork server.

    Raises:
        DisconnectedError: the connection has closed.
    """
    try:
        data, ancillary, _, _ = await control.recvmsg(_MAX_PACKET, socket.CMSG_SPACE(4))
    except OSError:
        raise DisconnectedError from None
    message = ServerMessage(data[:1], data[1:], _descriptors_in(ancillary))
    if not data:
        message.close()
        raise DisconnectedError
    return message


def _descriptors_in(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with a packet."""
    found: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            whole = len(data) - len(data) % 4
            found += [
                int.from_bytes(data[i : i + 4], sys.byteorder)
                for i in range(0, whole, 4)
            ]
    return found


async def send_request(
    control: trio.socket.SocketType, descriptors: Sequence[int]
) -> None:
    """Send one packet with *descriptors*; a cancellation sends all of it or nothing."""
    data = b"".join(d.to_bytes(4, sys.byteorder) for d in descriptors)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, data)]
    await control.sendmsg([b"f"], rights)


def server_error(data: bytes) -> OSError:
    """Return the error that a fork server has sent: an errno, a space and a message."""
    number, _, text = data.decode("utf-8", "replace").partition(" ")
    return OSError(int(number), text) if number.isdecimal() else OSError(text)
