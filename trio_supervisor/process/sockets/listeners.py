"""Find the process that listens on a port, through /proc (Linux)."""

from __future__ import annotations

import os
import pwd
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Final

from attrs import frozen

from trio_supervisor.process.groups import read_stat

# Source: proc_pid_net(5); linux/net/tcp_states.h. A bound UDP socket is "closed".
_TABLES: Final = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}


@frozen(kw_only=True)
class ListeningProcess:
    """A process that listens on a port."""

    port: int
    process_id: int | None
    """None: this user may not see the process."""
    group: int = 0
    """Its process group."""
    name: str = ""
    """Name of its program, or of its user if nothing else is known."""


def find_listening_process(
    ports: Collection[int], ours: Collection[int] = ()
) -> ListeningProcess | None:
    """Return a process that listens on one of *ports*; None: no such process is known.

    Reads /proc: call it in a thread.

    Args:
        ports: The most likely port first.
        ours: Preferred process groups, since many processes may have inherited a
            listening socket.
    """
    sockets = _sockets()
    for port in ports:
        inodes = {inode: user for p, inode, user in sockets if p == port}
        if not inodes:
            continue
        found = sorted(_holders(set(inodes)), key=lambda h: (h[1] not in ours, h[0]))
        if not found:
            user = _user_name(next(iter(inodes.values())))
            return ListeningProcess(port=port, process_id=None, name=user)
        process_id, group = found[0]
        return ListeningProcess(
            port=port, process_id=process_id, group=group, name=_program(process_id)
        )
    return None


def _sockets() -> list[tuple[int, str, int]]:
    """Return port, inode and user of each socket that occupies a port."""
    found = []
    for table, state in _TABLES.items():
        with (
            suppress(OSError),
            open(f"/proc/self/net/{table}", encoding="ascii") as file,
        ):
            for line in list(file)[1:]:
                fields = line.split()
                if len(fields) > 9 and fields[3] == state:
                    port = int(fields[1].rpartition(":")[2], 16)
                    found.append((port, fields[9], int(fields[7])))
    return found


def _holders(inodes: set[str]) -> Iterator[tuple[int, int]]:
    """Yield the number and group of each process that has one of *inodes* open."""
    links = {f"socket:[{inode}]" for inode in inodes}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with suppress(OSError):
            directory = f"/proc/{name}/fd"
            for descriptor in os.listdir(directory):
                with suppress(OSError):
                    if os.readlink(f"{directory}/{descriptor}") in links:
                        stat = read_stat(int(name))
                        yield int(name), stat[1] if stat else 0
                        break


def _program(process_id: int) -> str:
    with suppress(OSError), open(f"/proc/{process_id}/comm", "rb") as file:
        return file.read().decode("utf-8", "replace").strip()
    return ""


def _user_name(user: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(user).pw_name
    return str(user)
