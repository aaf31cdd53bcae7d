"""Ask the kernel what a socket is connected to, by getsockname(2) and getpeername(2).

``socket.socket(fileno=...)`` must not be used: with a default timeout set, it makes the
application's own socket non-blocking, even on a duplicated descriptor: to the kernel
that is the same socket. A duplicate could also exceed the limit of descriptors.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from typing import Final

from attrs import frozen

_ADDRESS_SIZE: Final = 128
"""Size of an address of any family [bytes]: sizeof(struct sockaddr_storage)."""
_CLOSE_WAIT: Final = 8
"""TCP_CLOSE_WAIT in Linux's tcp_states.h: only the peer has closed."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


@frozen(kw_only=True)
class SocketName:
    """Kind and addresses of a socket."""

    kind: str
    """``tcp``, ``tcp listening``, ``udp``, ``unix``, ``unix listening`` ..."""
    local: str
    peer: str
    """Empty: not connected."""
    port: int
    """The local port; 0: none."""
    is_hung_up: bool = False
    """Whether only the peer has closed the connection (TCP, Linux)."""


def name_socket(descriptor: int) -> SocketName:
    """Return what *descriptor* is now; it may have been reused since it was listed."""
    family, local, port = _address(_libc.getsockname, descriptor)
    _, peer, _ = _address(_libc.getpeername, descriptor)
    type_ = _option(descriptor, socket.SOL_SOCKET, socket.SO_TYPE)
    is_listening = _option(descriptor, socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    kind = _kind(family, type_)
    is_hung_up = (
        kind == "tcp"
        and sys.platform == "linux"
        and _option(descriptor, socket.IPPROTO_TCP, socket.TCP_INFO) & 0xFF
        == _CLOSE_WAIT
    )
    return SocketName(
        kind=f"{kind} listening" if is_listening else kind,
        local=local,
        peer=peer,
        port=port,
        is_hung_up=is_hung_up,
    )


def _kind(family: int, type_: int) -> str:
    if family in (socket.AF_INET, socket.AF_INET6):
        if type_ == socket.SOCK_STREAM:
            return "tcp"
        return "udp" if type_ == socket.SOCK_DGRAM else "raw"
    if family == socket.AF_UNIX:
        return "unix"
    return "netlink" if family == getattr(socket, "AF_NETLINK", -1) else "socket"


def _option(descriptor: int, level: int, option: int) -> int:
    value = (ctypes.c_char * 4)()
    size = ctypes.c_uint(ctypes.sizeof(value))
    if _libc.getsockopt(descriptor, level, option, value, ctypes.byref(size)):
        return 0
    return int.from_bytes(value.raw[: size.value], sys.byteorder)


def _address(call: ctypes._NamedFuncPointer, descriptor: int) -> tuple[int, str, int]:
    """Return the family, the address as text and the port."""
    raw = (ctypes.c_char * _ADDRESS_SIZE)()
    size = ctypes.c_uint(_ADDRESS_SIZE)
    if call(descriptor, raw, ctypes.byref(size)) or size.value < 2:
        return 0, "", 0
    address = raw.raw[: size.value]
    # BSDs store the length first, and the family in one byte.
    family = address[1] if sys.platform == "darwin" else _number(address[:2])
    if family == socket.AF_INET:
        (port,) = struct.unpack_from("!H", address, 2)
        return family, f"{socket.inet_ntop(family, address[4:8])}:{port}", port
    if family == socket.AF_INET6:
        (port,) = struct.unpack_from("!H", address, 2)
        return family, f"[{socket.inet_ntop(family, address[8:24])}]:{port}", port
    if family == socket.AF_UNIX:
        path = address[2:]
        # Linux's abstract names begin with a zero byte; other paths end with one.
        text = path[1:] if path[:1] == b"\0" else path.split(b"\0")[0]
        mark = "@" if path[:1] == b"\0" and text else ""
        return family, mark + text.decode("utf-8", "replace"), 0
    return family, "", 0


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, sys.byteorder)
