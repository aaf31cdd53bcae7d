"""Get the credentials of the peer of a Unix socket from the kernel."""

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
    """Credentials of a peer when it connected."""

    process_id: int | None
    """None: not available on this system."""
    user_id: int
    group_id: int

    @property
    def is_trusted(self) -> bool:
        """Whether the peer is root or the user of this process."""
        return self.user_id in (0, os.geteuid())


class HasOptions(Protocol):
    """A socket of trio or the standard library."""

    def getsockopt(self, level: int, name: int, size: int, /) -> bytes: ...


def peer_credentials(connection: HasOptions) -> Credentials:
    """Return the credentials of the peer of *connection*.

    Source: SO_PEERCRED in unix(7). On other systems, the mode of the socket file keeps
    other users out.

    Raises:
        OSError: the connection has closed.
    """
    if sys.platform == "linux":
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        process_id, user_id, group_id = _UCRED.unpack(data)
        return Credentials(process_id=process_id, user_id=user_id, group_id=group_id)
    return Credentials(process_id=None, user_id=os.geteuid(), group_id=os.getegid())


def peer_descriptor(connection: HasOptions) -> int | None:
    """Return a pidfd of the process that connected; None: not supported.

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
