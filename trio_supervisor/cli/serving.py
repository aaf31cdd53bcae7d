"""Run an application until a signal says stop: what `serve` does once all is loaded."""

from __future__ import annotations

import signal
from argparse import Namespace

import trio

from trio_supervisor.controller.opening import open_controller
from trio_supervisor.process.fork_server_start import EarlyServer
from trio_supervisor.process.load import load_application
from trio_supervisor.process.logs import configure_logging
from trio_supervisor.spec import Application


def serve(
    arguments: Namespace, source: str, socket_path: str, early: EarlyServer | None
) -> None:
    """Serve the target; *source* is the same, whatever the current directory.

    Raises what `open_controller` and `load_application` raise.
    """
    configure_logging(arguments.log_format, source="controller")
    # An ignored SIGCHLD is inherited; exit codes would be lost.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    application = load_application(arguments.target)
    trio.run(_serve, arguments, application, source, socket_path, early)


async def _serve(
    arguments: Namespace,
    application: Application,
    source: str,
    socket_path: str,
    early: EarlyServer | None,
) -> None:
    with trio.open_signal_receiver(
        signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    ) as signals:
        async with open_controller(
            application,
            socket_path=socket_path,
            source=source,
            log_format=arguments.log_format,
            early=early,
            owns_process=True,
        ) as controller:
            is_stopping = False
            async for number in signals:
                if number == signal.SIGHUP:
                    controller.request_restart("by SIGHUP")
                elif is_stopping:
                    controller.hurry()
                else:
                    is_stopping = True
                    controller.shutdown(f"by {signal.Signals(number).name}")
