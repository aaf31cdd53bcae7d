"""Name the log service that output is sent to: journald or syslog. Pure."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

from attrs import frozen

LogKind: TypeAlias = Literal["journald", "syslog"]
Transport: TypeAlias = Literal["unix", "udp", "tcp"]

FORMS: Final = (
    "journald",
    "syslog",
    "journald:/PATH",
    "syslog:/PATH",
    "syslog:udp://HOST:PORT",
    "syslog:tcp://HOST:PORT",
)
"""What a target may look like."""

_KINDS: Final[dict[str, tuple[LogKind, str]]] = {
    "journald": ("journald", "/run/systemd/journal/socket"),
    "syslog": ("syslog", "/dev/log"),
}
_NETWORK: Final = re.compile(
    r"(udp|tcp)://(?:\[([^\[\]/]+)\]|([^\[\]:/]+)):([0-9]{1,5})"
)
# sun_path of unix(7), in bytes, without the zero at its end.
_LONGEST_PATH: Final = 107
_HIGHEST_PORT: Final = 65_535


@frozen(kw_only=True)
class LogTarget:
    """A log service, and where it listens."""

    kind: LogKind
    transport: Transport
    path: str = ""
    """Of its Unix socket; empty: it listens on the network."""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.transport == "unix":
            return f"{self.kind} ({self.path})"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind} ({self.transport}://{host}:{self.port})"


def parse_log_target(text: str) -> LogTarget:
    """Return the target that *text* names.

    Raises:
        ValueError: it is none of `FORMS`; the message says why.
    """
    name, separator, address = text.partition(":")
    if name not in _KINDS or (separator and not address):
        raise ValueError(f"expected {', '.join(FORMS[:-1])} or {FORMS[-1]}")
    kind, usual = _KINDS[name]
    if not separator or address.startswith("/"):
        return LogTarget(kind=kind, transport="unix", path=_path(address or usual))
    match = _NETWORK.fullmatch(address)
    if match is None or kind != "syslog":
        expected = ", ".join(form for form in FORMS if form.startswith(f"{name}:"))
        raise ValueError(f"expected {expected}")
    port = int(match[4])
    if not 0 < port <= _HIGHEST_PORT:
        raise ValueError(f"expected a port from 1 to {_HIGHEST_PORT}")
    transport: Transport = "tcp" if match[1] == "tcp" else "udp"
    return LogTarget(
        kind=kind, transport=transport, host=match[2] or match[3], port=port
    )


def _path(path: str) -> str:
    if "\0" in path or len(path.encode("utf-8", "surrogateescape")) > _LONGEST_PATH:
        raise ValueError(f"expected a path of at most {_LONGEST_PATH} bytes")
    return path
