"""Build the environment of child processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

SOCKET_VARIABLE: Final = "TRIO_SUPERVISOR_SOCKET"
"""Path of the supervisor's socket; clients read it too."""
DEFAULT_SOCKET: Final = "supervisor.ipc"
"""Default name of the supervisor's socket."""
MARKER_VARIABLE: Final = "TRIO_SUPERVISOR_CONTROLLER"
"""Identifies the controller that a process descends from, even after setsid()."""
NAME_VARIABLE: Final = "TRIO_SUPERVISOR_NAME"
"""Name of the worker that a process is, or descends from."""

PROCESS_VARIABLE: Final = "TRIO_SUPERVISOR_PROCESS"
"""Which process of that worker it is, or descends from."""

CODE_ONLY_VARIABLE: Final = "TRIO_SUPERVISOR_CODE_ONLY"
"""Set where an import is only for its functions: what it declares is known already."""

# Not inherited by children: they describe this process, or a controller above it.
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
    CODE_ONLY_VARIABLE,
)


def unsupervised_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return *base* without the variables that mark a child of a controller."""
    return {k: v for k, v in base.items() if k not in _DROPPED}


def child_environment(
    base: Mapping[str, str], socket_path: str, marker: str
) -> dict[str, str]:
    """Return the environment that all children share."""
    return {
        **unsupervised_environment(base),
        SOCKET_VARIABLE: socket_path,
        MARKER_VARIABLE: marker,
    }


def process_mark(name: str, generation: int, incarnation: int) -> str:
    """Return a mark that is unique among the processes of a controller."""
    return f"{name}/{generation}/{incarnation}"


EVENTS_FILE: Final = "events.jsonl"
"""Name of the file of events in the state directory; the older one ends with ``.1``."""


def state_path(socket_path: str, option: str | None = None) -> str:
    """Return the directory for data that outlives a controller.

    The *option* if given, else systemd's (the first of ``STATE_DIRECTORY``), else one
    beside the socket.
    """
    told = option or os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    root, _ = os.path.splitext(socket_path)
    return os.path.abspath(told or f"{root}.state")
