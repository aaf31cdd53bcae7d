"""Addresses that the controller listens on for a service. Pure."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Final, Literal

from attrs import frozen

from trio_supervisor.application import checks
from trio_supervisor.errors import SpecError

_HOST_AND_PORT: Final = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*):([0-9]{1,5})")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_ONLY_NUMBERS: Final = re.compile(r"[0-9.]+")
# They go into LISTEN_FDNAMES, which separates them by colons; sd_listen_fds(3).
_SOCKET_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_SOCKETS: Final = 32
# struct sockaddr_un has 108 bytes on Linux, the last of which is zero; unix(7).
_MAX_PATH: Final = 107
_MAX_BACKLOG: Final = 65_535
# The last one, (uid_t) -1, stands for "unchanged"; chown(2).
_MAX_OWNER: Final = 2**32 - 2
ALL: Final = "*"
"""The host that stands for all addresses of the machine."""


@frozen(init=False)
class Listen:
    """An address that the controller listens on, and hands to its workers.

    Args:
        url: ``tcp://HOST:PORT`` or ``unix://PATH``. IPv6 stands in brackets; no host,
            or ``*``, is all addresses; port 0 is one that the system chooses. A path
            is absolute in ``unix:///run/web.sock``, and from the controller's
            directory in ``unix://web.sock``.
        backlog: How many connections may wait to be accepted.
        reuse_port: Whether each worker gets a socket of its own, among which the
            system spreads connections (SO_REUSEPORT); for tcp only.
        mode: Permissions of the file of a unix socket; tcp has none. The default is
            0o600, and 0o660 where a *group* is named.
        user: Owner of the file of a unix socket, by name or number; None: the user
            that the controller runs as. Only root may name another one.
        group: Group of the file of a unix socket, by name or number, such as
            ``"www-data"`` for nginx; None: the controller's. Root may name any
            group, other users one that they are a member of.

    Raises:
        SpecError: an argument does not fit; the message names it.
    """

    kind: Literal["tcp", "unix"]
    host: str
    """``"*"`` is all; empty for unix."""
    port: int
    """0: the system chooses; 0 for unix."""
    path: str
    """Empty for tcp."""
    backlog: int
    reuse_port: bool
    mode: int
    user: str | int | None
    group: str | int | None

    def __init__(
        self,
        url: str,
        *,
        backlog: int = 1024,
        reuse_port: bool = False,
        mode: int | None = None,
        user: str | int | None = None,
        group: str | int | None = None,
    ) -> None:
        host, port, path = "", 0, ""
        if not checks.is_text(url):
            raise SpecError("url", f"expected a string, got {checks.shown(url)}")
        if url.startswith("unix://"):
            path = _path(url)
        elif url.startswith("tcp://"):
            address = url.removeprefix("tcp://")
            host, port = host_and_port("url", address, may_be_all=True)
        else:
            problem = "expected tcp://HOST:PORT or unix://PATH"
            raise SpecError("url", f"{problem}, got {checks.shown(url)}")
        if checks.flag("reuse_port", reuse_port) and path:
            raise SpecError("reuse_port", "is for tcp only")
        if mode is None:
            mode = 0o600 if group is None else 0o660
        if not path:
            for field, value in (("user", user), ("group", group)):
                if value is not None:
                    raise SpecError(field, "is for unix only")
        self.__attrs_init__(
            kind="unix" if path else "tcp",
            host=host,
            port=port,
            path=path,
            backlog=checks.integer("backlog", backlog, least=1, most=_MAX_BACKLOG),
            reuse_port=reuse_port,
            mode=checks.integer("mode", mode, least=0, most=0o777),
            user=_owner("user", user),
            group=_owner("group", group),
        )

    def __str__(self) -> str:
        """The URL, always in the same form."""
        if self.kind == "unix":
            return f"unix://{self.path}"
        return f"tcp://{join_host_and_port(self.host, self.port)}"


def sockets(field: str, value: object) -> dict[str, Listen]:
    """Return *value* if it says for names of sockets where they listen."""
    found = checks.dictionary(field, value)
    if len(found) > _MAX_SOCKETS:
        raise SpecError(field, f"expected {_MAX_SOCKETS} at most, got {len(found)}")
    for key, listen in found.items():
        if not isinstance(key, str) or not _SOCKET_NAME.fullmatch(key):
            problem = "expected names of up to 64 letters, digits, '-' and '_'"
            raise SpecError(field, f"{problem}, got {checks.shown(key)}")
        if not isinstance(listen, Listen):
            problem = f"expected a Listen, got {checks.shown(listen)}"
            raise SpecError(f"{field}[{key!r}]", problem)
    return found


def host_and_port(
    field: str, address: str, *, may_be_all: bool = False
) -> tuple[str, int]:
    """Return what ``HOST:PORT`` names, IPv6 without its brackets.

    Without *may_be_all* it is where to connect to: a host and a port are needed.
    """
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None or int(match[2]) > 65_535:
        problem = "expected HOST:PORT with a port up to 65535 (IPv6 in brackets)"
        raise SpecError(field, f"{problem}, got {checks.shown(address)}")
    host, port = match[1], int(match[2])
    if host in ("", ALL) or port == 0:
        if not may_be_all:
            problem = "expected a host and a port to connect to"
            raise SpecError(field, f"{problem}, got {checks.shown(address)}")
        if host in ("", ALL):
            return ALL, port
    return _host(field, host), port


def join_host_and_port(host: str, port: int) -> str:
    """Return ``HOST:PORT``, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host(field: str, host: str) -> str:
    """Return *host* in the one form that it is compared in."""
    try:
        if host.startswith("["):
            return str(IPv6Address(host[1:-1]))
        if _ONLY_NUMBERS.fullmatch(host):
            return str(ip_address(host))
    except ValueError:
        pass
    else:
        if _HOST_NAME.fullmatch(host):
            return host.lower()
    raise SpecError(field, f"not the name or address of a host: {checks.shown(host)}")


def _owner(field: str, value: object) -> str | int | None:
    """Return *value* if it can be the name or number of a user or group."""
    if value is None:
        return None
    if isinstance(value, str) and value and "\0" not in value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return checks.integer(field, value, least=0, most=_MAX_OWNER)
    problem = "expected a name or a number"
    raise SpecError(field, f"{problem}, got {checks.shown(value)}")


def _path(url: str) -> str:
    path = url.removeprefix("unix://")
    length = len(path.encode("utf-8", "surrogateescape"))
    if not 1 <= length <= _MAX_PATH:
        problem = f"expected a path of 1 to {_MAX_PATH} bytes"
        raise SpecError("url", f"{problem}, got {checks.shown(path)}")
    return path
