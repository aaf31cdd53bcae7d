"""``serve``: run an application in the foreground until a signal says stop."""

from __future__ import annotations

import os
import signal
from argparse import Namespace

import trio

from trio_supervisor.cli.connection import DEFAULT_SOCKET, SOCKET_VARIABLE
from trio_supervisor.controller.controller import Controller, open_controller
from trio_supervisor.process.load import is_path, load_application, split_target
from trio_supervisor.process.logs import configure_logging
from trio_supervisor.spec import Application


def run_serve(arguments: Namespace) -> None:
    """Serve the target. Raises what `open_controller` and `load_application` raise."""
    configure_logging(arguments.log_format, source="controller")
    # An ignored SIGCHLD is inherited; exit codes would be lost.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    application = load_application(arguments.target)
    trio.run(_serve, arguments, application)


async def _serve(arguments: Namespace, application: Application) -> None:
    with trio.open_signal_receiver(
        signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    ) as signals:
        async with open_controller(
            application,
            socket_path=serve_socket(arguments.socket, arguments.target),
            source=arguments.target,
            log_format=arguments.log_format,
        ) as controller:
            is_stopping = False
            async for number in signals:
                if number == signal.SIGHUP:
                    _restart_all(controller)
                elif is_stopping:
                    controller.hurry()
                else:
                    is_stopping = True
                    controller.shutdown(f"by {signal.Signals(number).name}")


def _restart_all(controller: Controller) -> None:
    for child in controller.children.values():
        child.request_restart("by SIGHUP")


def serve_socket(option: str | None, target: str) -> str:
    """Return where to listen: as told, else beside the service file, else here."""
    told = option or os.environ.get(SOCKET_VARIABLE)
    if told:
        return os.path.abspath(told)
    where, _ = split_target(target)
    directory = os.path.dirname(os.path.abspath(where)) if is_path(where) else "."
    return os.path.abspath(os.path.join(directory, DEFAULT_SOCKET))
