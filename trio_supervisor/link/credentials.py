"""Who is at the other end of a Unix socket, by the kernel's word."""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import Final, Protocol

from attrs import frozen

_SO_PEERPIDFD: Final = 77
_INT: Final = struct.Struct("i")
_UCRED: Final = struct.Struct("3i")


@frozen(kw_only=True)
class Credentials:
    """The peer at the moment it connected."""

    process_id: int | None
    """None: this system does not say."""
    user_id: int
    group_id: int

    @property
    def is_trusted(self) -> bool:
        """Whether it is of this process's user, or root."""
        return self.user_id in (0, os.geteuid())


class HasOptions(Protocol):
    """A socket, trio's or the standard library's."""

    def getsockopt(self, level: int, name: int, size: int, /) -> bytes: ...


def peer_credentials(connection: HasOptions) -> Credentials:
    """Return the credentials of the peer of *connection*.

    Source: SO_PEERCRED in unix(7). Elsewhere the mode of the socket's file has let
    nobody else in.

    Raises:
        OSError: the connection is gone.
    """
    if sys.platform == "linux":
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        process_id, user_id, group_id = _UCRED.unpack(data)
        return Credentials(process_id=process_id, user_id=user_id, group_id=group_id)
    return Credentials(process_id=None, user_id=os.geteuid(), group_id=os.getegid())


def peer_descriptor(connection: HasOptions) -> int | None:
    """Return a pidfd of the process that connected; None: there is none to be had.

    Source: SO_PEERPIDFD, Linux 6.5. The caller closes it.
    """
    if sys.platform != "linux":
        return None
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, _INT.size)
    except OSError:
        return None
    descriptor: int = _INT.unpack(data)[0]
    return descriptor
