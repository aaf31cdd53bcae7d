"""Addresses that the controller listens on for a service. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from typing import Final, Literal

from attrs import field, frozen

from trio_supervisor.application import checks
from trio_supervisor.application.fields import (
    Checked,
    checked_later,
    documented,
    option,
)
from trio_supervisor.errors import SpecError

_HOST_AND_PORT: Final = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*):([0-9]{1,5})")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_ONLY_NUMBERS: Final = re.compile(r"[0-9.]+")
# LISTEN_FDNAMES contains them, separated by colons; sd_listen_fds(3).
_SOCKET_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_SOCKETS: Final = 32
# sun_path of struct sockaddr_un has 108 bytes on Linux with its final zero; unix(7).
_MAX_PATH: Final = 107
_MAX_BACKLOG: Final = 65_535
# (uid_t) -1 means "unchanged"; chown(2).
_MAX_OWNER: Final = 2**32 - 2
ALL: Final = "*"
"""The host that means all addresses of the machine."""


def _checked_url(value: str, field: str = "") -> str:
    """Return the URL *value* in the one form that it is compared in."""
    if not checks.is_text(value):
        raise SpecError(field, f"expected a string, got {checks.shown(value)}")
    if value.startswith("unix://"):
        return f"unix://{_path(value, field)}"
    if value.startswith("tcp://"):
        address = value.removeprefix("tcp://")
        host, port = host_and_port(address, field, may_be_all=True)
        return f"tcp://{join_host_and_port(host, port)}"
    problem = "expected tcp://HOST:PORT or unix://PATH"
    raise SpecError(field, f"{problem}, got {checks.shown(value)}")


def _checked_mode(value: int | None, field: str = "") -> int | None:
    return checks.integer_or_none(value, field, least=0, most=0o777)


def _checked_owner(value: str | int | None, field: str = "") -> str | int | None:
    if value is None:
        return None
    if isinstance(value, str) and value and "\0" not in value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return checks.integer(value, field, least=0, most=_MAX_OWNER)
    problem = "expected a name or a number"
    raise SpecError(field, f"{problem}, got {checks.shown(value)}")


@documented
@frozen(slots=False, field_transformer=checked_later)
class Listen(Checked):
    """An address that the controller listens on for the workers of a service.

    Example::

        Listen("unix:///run/web.sock", group="www-data")

    Raises:
        SpecError: the value of an option is not valid; the message names the option.
    """

    url: str = field(
        converter=_checked_url,
        metadata=option(
            "`tcp://HOST:PORT` or `unix://PATH`. An IPv6 address is written in "
            "brackets; no host, or `*`, means all addresses; port 0 means any free "
            "port. `unix:///run/web.sock` is an absolute path, `unix://web.sock` is "
            "relative to the directory of the controller."
        ),
    )
    """The URL, always in the same form."""
    backlog: int = field(
        default=1024,
        kw_only=True,
        converter=checks.integer,
        metadata=option(
            "Maximum number of connections that wait to be accepted.",
            least=1,
            most=_MAX_BACKLOG,
        ),
    )
    reuse_port: bool = field(
        default=False,
        kw_only=True,
        converter=checks.flag,
        metadata=option(
            "Whether each worker gets a socket of its own, and the kernel distributes "
            "connections among them (SO_REUSEPORT); for tcp only."
        ),
    )
    mode: int = field(
        default=None,
        kw_only=True,
        converter=_checked_mode,
        metadata=option(
            "Permissions of a unix socket's file. `None` means 0o600, or 0o660 if "
            "`group` is set."
        ),
    )
    user: str | int | None = field(
        default=None,
        kw_only=True,
        converter=_checked_owner,
        metadata=option(
            "Owner of a unix socket's file, by name or number; `None`: the user that "
            "the controller runs as. Only root may set another user."
        ),
    )
    group: str | int | None = field(
        default=None,
        kw_only=True,
        converter=_checked_owner,
        metadata=option(
            "Group of a unix socket's file, by name or number, such as `www-data` for "
            "nginx; `None`: the group of the controller. Root may set any group, other "
            "users one that they are a member of."
        ),
    )

    def __attrs_post_init__(self) -> None:
        """Check the options, and that they suit the kind of socket."""
        super().__attrs_post_init__()
        if self.kind == "unix":
            if self.reuse_port:
                raise SpecError("reuse_port", "is for tcp only")
        else:
            for name in ("user", "group"):
                if getattr(self, name) is not None:
                    raise SpecError(name, "is for unix only")
        if self.mode is None:
            mode = 0o600 if self.group is None else 0o660
            object.__setattr__(self, "mode", mode)

    @property
    def kind(self) -> Literal["tcp", "unix"]:
        """The family of the socket."""
        return "unix" if self.url.startswith("unix://") else "tcp"

    @property
    def host(self) -> str:
        """Name or address to listen on; ``"*"`` for all, empty for unix."""
        return self._host_and_port[0]

    @property
    def port(self) -> int:
        """TCP port; 0 for any free one, and for unix."""
        return self._host_and_port[1]

    @property
    def path(self) -> str:
        """Path of the socket's file; empty for tcp."""
        return self.url.removeprefix("unix://") if self.kind == "unix" else ""

    @property
    def _host_and_port(self) -> tuple[str, int]:
        if self.kind == "unix":
            return "", 0
        address = self.url.removeprefix("tcp://")
        return host_and_port(address, "url", may_be_all=True)

    def __str__(self) -> str:
        return self.url


def checked_sockets(
    value: Mapping[str, Listen] | None, field: str = ""
) -> dict[str, Listen]:
    """Return the sockets in *value*, by name."""
    found = checks.dictionary(value, field)
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
    address: str, field: str, *, may_be_all: bool = False
) -> tuple[str, int]:
    """Return the host and port in ``HOST:PORT``, an IPv6 address without brackets.

    Args:
        may_be_all: Whether the host may mean all addresses, and the port any: to
            listen, not to connect.
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
    return _host(host, field), port


def join_host_and_port(host: str, port: int) -> str:
    """Return ``HOST:PORT``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host(host: str, field: str) -> str:
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
    raise SpecError(field, f"not a host name or an IP address: {checks.shown(host)}")


def _path(url: str, field: str) -> str:
    path = url.removeprefix("unix://")
    length = len(path.encode("utf-8", "surrogateescape"))
    if not 1 <= length <= _MAX_PATH:
        problem = f"expected a path of 1 to {_MAX_PATH} bytes"
        raise SpecError(field, f"{problem}, got {checks.shown(path)}")
    return path
