"""What a socket's descriptor is connected to, asked of the kernel without touching it.

Not by ``socket.socket(fileno=...)``: with a default timeout set, that makes the
application's own socket non-blocking, and a copy of the descriptor as well, for both
are one socket to the kernel. Nor does it need a descriptor more, of which there may be
none left.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from typing import Final

from attrs import frozen

_ROOM: Final = 128
"""For an address of any family [bytes]: sizeof(struct sockaddr_storage)."""
_CLOSE_WAIT: Final = 8
"""TCP_CLOSE_WAIT in Linux's tcp_states.h: the peer has hung up, this side has not."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


@frozen(kw_only=True)
class SocketName:
    """A socket as a census tells it."""

    kind: str
    """``tcp``, ``tcp listening``, ``udp``, ``unix``, ``unix listening`` ..."""
    local: str
    peer: str
    """Empty: it has none."""
    port: int
    """The local one; 0: there is none."""
    is_hung_up: bool = False
    """Whether the peer is gone and the application has yet to notice (TCP, Linux)."""


def name_socket(descriptor: int) -> SocketName:
    """Return what *descriptor* is; it may have become another one's meanwhile."""
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


def _address(ask: ctypes._NamedFuncPointer, descriptor: int) -> tuple[int, str, int]:
    """Return the family, the address in words and the port."""
    raw = (ctypes.c_char * _ROOM)()
    size = ctypes.c_uint(_ROOM)
    if ask(descriptor, raw, ctypes.byref(size)) or size.value < 2:
        return 0, "", 0
    address = raw.raw[: size.value]
    # BSDs have the length in front, and a byte for the family.
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
