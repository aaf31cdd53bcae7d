"""What children find in their environment, and what is kept from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

SOCKET_VARIABLE: Final = "TRIO_SUPERVISOR_SOCKET"
"""Where the supervisor listens; clients look here too."""
DEFAULT_SOCKET: Final = "supervisor.ipc"
"""The name of its socket where nobody says anything else."""
MARKER_VARIABLE: Final = "TRIO_SUPERVISOR_CONTROLLER"
"""Tells whose child a process is, however far it went."""
NAME_VARIABLE: Final = "TRIO_SUPERVISOR_NAME"
"""The name of the worker that a process is, or is of."""

PROCESS_VARIABLE: Final = "TRIO_SUPERVISOR_PROCESS"
"""Which process of that name it is, or descends from."""

# Not passed on: they speak of us, or of a controller above us.
_DROPPED: Final = (
    "NOTIFY_SOCKET",
    "NOTIFY_LOG",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "SPT_NOENV",
    MARKER_VARIABLE,
    SOCKET_VARIABLE,
    NAME_VARIABLE,
    PROCESS_VARIABLE,
)


def unsupervised_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return *base* without what would make a process look like a child."""
    return {k: v for k, v in base.items() if k not in _DROPPED}


def child_environment(
    base: Mapping[str, str], socket_path: str, marker: str
) -> dict[str, str]:
    """Return what every child has."""
    return {
        **unsupervised_environment(base),
        SOCKET_VARIABLE: socket_path,
        MARKER_VARIABLE: marker,
    }


def process_mark(name: str, generation: int, incarnation: int) -> str:
    """Return what no other process of one controller has as its mark."""
    return f"{name}/{generation}/{incarnation}"


def state_path(socket_path: str, option: str | None = None) -> str:
    """Return where is kept what outlives a controller.

    As told, else as systemd says (the first of ``STATE_DIRECTORY``), else beside the
    socket.
    """
    told = option or os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    root, _ = os.path.splitext(socket_path)
    return os.path.abspath(told or f"{root}.state")
