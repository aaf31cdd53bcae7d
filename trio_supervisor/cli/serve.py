"""``serve``: start the fork server first, then load all that a controller needs.

Both import trio and the application, which takes most of the time until all workers are
ready; so they do it at the same time.
"""

from __future__ import annotations

import os
import sys
import uuid
from argparse import Namespace

from trio_supervisor.cli.connection import DEFAULT_SOCKET
from trio_supervisor.process.environment import SOCKET_VARIABLE, child_environment
from trio_supervisor.process.fork_server_start import (
    EarlyServer,
    fork_server_plan,
    start_fork_server,
)
from trio_supervisor.process.sources import (
    Reference,
    absolute_target,
    is_path,
    split_target,
)


def run_serve(arguments: Namespace) -> None:
    """Serve the target in the foreground."""
    socket_path = serve_socket(arguments.socket, arguments.target)
    early = _start_early(arguments.target, socket_path)
    try:
        from trio_supervisor.cli.serving import serve

        serve(arguments, socket_path, early)
    finally:
        if early is not None:
            early.started.control.close()  # and so it ends, if nobody has adopted it


def _start_early(target: str, socket_path: str) -> EarlyServer | None:
    where, _ = split_target(target)
    if sys.platform != "linux" or (is_path(where) and not os.path.isfile(where)):
        return None
    marker = str(uuid.uuid4())
    reference = Reference(
        absolute_target(target), tuple(map(os.path.abspath, sys.path))
    )
    environment = child_environment(os.environ, socket_path, marker)
    plan = fork_server_plan(os.path.basename(where), [reference], environment)
    try:
        return EarlyServer(marker, start_fork_server(plan))
    except OSError:
        return None  # the controller tries again, and says what is wrong


def serve_socket(option: str | None, target: str) -> str:
    """Return where to listen: as told, else beside the service file, else here."""
    told = option or os.environ.get(SOCKET_VARIABLE)
    if told:
        return os.path.abspath(told)
    where, _ = split_target(target)
    directory = os.path.dirname(os.path.abspath(where)) if is_path(where) else "."
    return os.path.abspath(os.path.join(directory, DEFAULT_SOCKET))
