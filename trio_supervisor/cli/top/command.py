"""Check that ``top`` can run, and run it."""

from __future__ import annotations

import importlib.util
import os
import sys
from argparse import Namespace

from trio_supervisor.cli.connection import UsageError, socket_path
from trio_supervisor.errors import PlatformError


def run_top(arguments: Namespace) -> None:
    """Show a live view of the application until the operator quits."""
    path = socket_path(arguments.socket)
    check_terminal()
    check_textual()
    # Only now: importing textual takes longer than any other verb.
    from trio_supervisor.cli.top.app import TopApp
    from trio_supervisor.cli.top.client import SocketClient

    if not os.environ.get("NO_COLOR"):
        os.environ.pop("NO_COLOR", None)  # if empty, it means nothing: no-color.org
    client = SocketClient(path, arguments.timeout)
    # With the mouse left to the terminal, text can be selected and copied.
    TopApp(client, path, arguments.interval).run(mouse=False)


def check_terminal() -> None:
    """Check that all standard streams are a terminal.

    Raises:
        UsageError: one of them is not, or the terminal cannot place text.
    """
    streams = (sys.__stdin__, sys.__stdout__, sys.__stderr__)  # as textual uses them
    if not all(stream is not None and stream.isatty() for stream in streams):
        raise UsageError("top needs a terminal; use `status` or `status --json`")
    if os.environ.get("TERM", "dumb") == "dumb":
        raise UsageError("top cannot draw on a dumb terminal (TERM); use `status`")


def check_textual() -> None:
    """Check that the library that draws is installed.

    Raises:
        PlatformError: textual is not installed.
    """
    if importlib.util.find_spec("textual") is None:
        raise PlatformError("top needs textual; pip install 'trio_supervisor[top]'")
