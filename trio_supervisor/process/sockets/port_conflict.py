"""Detect that another process than the probed worker listens on its port. Linux."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from trio_supervisor.process.groups import has_variable, read_stat
from trio_supervisor.process.spawn.environment import NAME_VARIABLE

_LISTEN: Final = "0A"
_V4_IN_V6: Final = "::ffff:"


def conflicting_listener(host: str, port: int, leader: int, mark: str) -> str:
    """Return a description of the process that answers in place of a worker.

    Empty: the worker itself, or one of its processes, listens there; or that is
    unknown, for example because the listener belongs to another user.

    Args:
        host: A literal address.
        leader: Leader of the worker's process group.
        mark: ``NAME=VALUE`` in the environment of all descendants of the worker.
    """
    wanted = {f"socket:[{inode}]" for inode in _listeners(host, port)}
    if not wanted or read_stat(leader) is None:
        return ""
    for pid in _tree(leader):
        holds = _holds(pid, wanted)
        if holds is None or holds:
            return ""  # its own, or one of its processes cannot be inspected
    found = [pid for pid in _pids() if _holds(pid, wanted)]
    if not found or any(_belongs(pid, leader, mark) for pid in found):
        return ""
    return _described(min(found))


def _listeners(host: str, port: int) -> list[str]:
    """Return the inodes of the sockets that get connections to an address."""
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    by_address: dict[str, list[str]] = {}
    for table in ("tcp", "tcp6"):
        for place, inode in _table(table, port):
            by_address.setdefault(place, []).append(inode)
    if isinstance(address, IPv4Address):
        order = [str(address), "0.0.0.0", f"{_V4_IN_V6}{address}", "::"]
    else:
        order = [str(address), "::"]
    for place in order:
        if place in by_address:
            return by_address[place]
    return []


def _table(name: str, port: int) -> Iterator[tuple[str, str]]:
    """Yield address and inode of each socket of a table that listens on *port*."""
    try:
        with open(f"/proc/net/{name}", encoding="ascii") as file:
            lines = file.readlines()[1:]
    except OSError:
        return
    for line in lines:
        words = line.split()
        place, _, number = words[1].partition(":")
        if words[3] == _LISTEN and int(number, 16) == port:
            yield _address(place), words[9]


def _address(digits: str) -> str:
    """Return the address for 8 or 32 hexadecimal digits, in native byte order."""
    data = b"".join(
        bytes.fromhex(digits[place : place + 8])[::-1]
        for place in range(0, len(digits), 8)
    )
    if len(data) == 4:
        return str(IPv4Address(data))
    address = IPv6Address(data)
    mapped = address.ipv4_mapped
    return f"{_V4_IN_V6}{mapped}" if mapped is not None else str(address)


def _holds(pid: int, wanted: set[str]) -> bool | None:
    """Return whether process *pid* has one of *wanted* open; None: unknown."""
    directory = f"/proc/{pid}/fd"
    try:
        # In ascending order: listening sockets are opened early.
        numbers = sorted(map(int, os.listdir(directory)))
    except FileNotFoundError:
        return False  # it has exited
    except OSError:
        return None
    for number in numbers:
        try:
            if os.readlink(f"{directory}/{number}") in wanted:
                return True
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return False


def _tree(leader: int) -> Iterator[int]:
    """Yield a process and all its descendants."""
    left, seen = [leader], {leader}
    while left:
        pid = left.pop()
        yield pid
        for child in _children(pid):
            if child not in seen:
                seen.add(child)
                left.append(child)


def _children(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
        except OSError:
            continue
    return found


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _belongs(pid: int, leader: int, mark: str) -> bool:
    stat = read_stat(pid)
    is_member = stat is None or stat[1] == leader
    return is_member or has_variable(pid, os.fsencode(mark))


def _described(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            name = file.read().strip()
    except OSError:
        return f"another process (pid {pid})"
    prefix = f"{NAME_VARIABLE}=".encode()
    for variable in variables:
        if variable.startswith(prefix):
            name = os.fsdecode(variable.removeprefix(prefix))
    return f"{name} (pid {pid})"
