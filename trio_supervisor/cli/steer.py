"""``restart``, ``stop``, ``start`` and ``shutdown``."""

from __future__ import annotations

from argparse import Namespace

from trio_supervisor.cli.connection import Connection, Deadline, socket_path
from trio_supervisor.cli.output import print_json
from trio_supervisor.wire.json_tree import Object


def run_restart(arguments: Namespace) -> None:
    """Replace workers, and wait for the new ones."""
    names = list(arguments.names)
    _steer(arguments, "restart", {"names": names} if names else {}, "restarted")


def run_stop(arguments: Namespace) -> None:
    """End workers, and wait for that."""
    _steer(arguments, "stop", {"names": list(arguments.names)}, "stopped")


def run_start(arguments: Namespace) -> None:
    """Start workers, and wait until they are ready."""
    _steer(arguments, "start", {"names": list(arguments.names)}, "started")


def run_shutdown(arguments: Namespace) -> None:
    """Have everything stopped."""
    _steer(arguments, "shutdown", {}, "shutting down")


def _steer(arguments: Namespace, do: str, fields: Object, done: str) -> None:
    path = socket_path(arguments.socket)
    with Connection(path, Deadline(arguments.timeout)) as connection:
        connection.call(do, fields)
    names = fields.get("names", [] if do == "shutdown" else ["everything"])
    if arguments.json:
        print_json({"done": do, "names": names})
    else:
        print(" ".join([", ".join(names), done]).strip())
