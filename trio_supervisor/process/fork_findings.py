"""Find what an import has left behind that a fork does not copy well."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress


def describe_unsafe() -> list[str]:
    """Return what an import has left behind that a fork does not copy well."""
    found = [
        f"the thread {thread.name!r}"
        for thread in threading.enumerate()
        if thread is not threading.main_thread()
    ]
    with suppress(OSError):
        unknown = len(os.listdir("/proc/self/task")) - 1 - len(found)
        if unknown > 0:
            found.append(f"{unknown} threads that are not Python's")
    return found


def open_connections(known: set[int]) -> list[str]:
    """Return the sockets among this process's descriptors, but for those *known*."""
    found = []
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            if int(name) in known:
                continue
            with suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    found.append(_describe_socket(int(name)))
    return found


def _describe_socket(descriptor: int) -> str:
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        try:
            return f"a connection to {connection.getpeername()!r}"
        except OSError:
            return f"a socket at {connection.getsockname()!r}"


def fork_warning(unsafe: list[str]) -> str:
    return (
        f"importing the application left {', '.join(unsafe)}, which a fork does not "
        f'copy well; open it in the target, or use start_method="exec"'
    )
