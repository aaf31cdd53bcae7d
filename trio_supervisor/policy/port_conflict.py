"""Find the ports in an "address already in use" message of a program. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

# Source: the text of glibc's EADDRINUSE, and the messages of gunicorn, Node, Rust and
# Spring.
_IN_USE: Final = re.compile(
    r"address(?: is)? already in use|EADDRINUSE|AddrInUse|connection in use|"
    r"port:? \d+ (?:is|was) (?:already )?(?:in use|allocated)|\[Errno (?:98|48)\]",
    re.IGNORECASE,
)
# 127.0.0.1:80, *:80, [::]:80, :::80, :80; ('127.0.0.1', 80); port 80, --port=80.
_PORT: Final = re.compile(
    r"(?:(?:^|[^\w.-])(?:[\w.-]+|\*|\[[0-9a-fA-F:.%]*\]|::)?:|"
    r"['\"],\s*|\bports?['\"]?\s*[:=]?\s*[\"']?)(\d{1,5})(?![\w./])(?!:\d)",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(r"(?:^|[=:])(\d{1,5})$")
# A port of the same message is at most this far from the matching line [lines].
_NEAR: Final = 3
_LONGEST: Final = 1000


def wanted_ports(lines: Sequence[str], arguments: Iterable[str] = ()) -> list[int]:
    """Return the ports that *lines* report as in use, the most likely first.

    The list is empty if there is no such message. The caller has to check which of
    them really have a listener, because not every number is a port.

    Args:
        lines: Last output of the program.
        arguments: Arguments of the program: the port may be named only there.
    """
    lines = [line[:_LONGEST] for line in lines]
    places = [i for i, line in enumerate(lines) if _IN_USE.search(line)]
    if not places:
        return []
    near = [i for i in range(len(lines)) if min(abs(i - p) for p in places) <= _NEAR]
    near.sort(key=lambda i: min(abs(i - p) for p in places))
    found = [match for i in near for match in _PORT.findall(lines[i])]
    found += [match for text in arguments for match in _NUMBER.findall(text)]
    ports = dict.fromkeys(int(match) for match in found)
    return [port for port in ports if 0 < port < 65536]
