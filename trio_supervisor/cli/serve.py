"""Run ``serve``: start the fork server, then import what the controller needs.

Both imports take most of the time until all workers are ready, so they run in parallel.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any, NoReturn

from trio_supervisor.cli.find_target import find_target
from trio_supervisor.cli.serve_watch import check_watchable, wait_for_change
from trio_supervisor.cli.terminal import Terminal
from trio_supervisor.cli.verbs.verb import PROGRAM
from trio_supervisor.errors import SpecError, SupervisorError, TargetError
from trio_supervisor.link.listener import check_socket_path
from trio_supervisor.process.spawn.code_source import (
    Reference,
    absolute_target,
    is_path,
    split_target,
)
from trio_supervisor.process.spawn.environment import (
    DEFAULT_SOCKET,
    SOCKET_VARIABLE,
    child_environment,
)
from trio_supervisor.process.spawn.fork_server_protocol import (
    EarlyServer,
    fork_server_plan,
    kill_server,
    start_fork_server,
)
from trio_supervisor.process.spawn.signal_dispositions import (
    Ignored,
    begin_with_defaults,
    restore,
)
from trio_supervisor.process.spawn.working_directory import absolute, import_path


class _Terminated(KeyboardInterrupt):
    """SIGTERM, or a SIGHUP of the terminal, before the application was started."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number


def run_serve(arguments: Namespace) -> None:
    """Serve the target in the foreground, until a signal or `shutdown` ends it."""
    began = time.time_ns()
    gc.disable()  # while importing: saves a tenth of the time
    ignored = begin_with_defaults()
    terminal = Terminal()
    # Before any file is opened: descriptors passed by systemd have the lowest numbers.
    adopted = _adopt()
    if arguments.target is None:
        arguments.target = find_target()
        arguments.is_target_found = True
    try:
        socket_path = serve_socket(arguments.socket, arguments.target)
        # Now: a service file may change the working directory when it is imported.
        source = absolute_target(arguments.target)
    except FileNotFoundError:
        problem = "the current directory was removed; change to another one"
        raise TargetError(f"{arguments.target}: {problem}") from None
    check_socket_path(socket_path)
    if arguments.watch:
        check_watchable()
    if arguments.otlp is not None:  # imported only with it
        from trio_supervisor.controller.telemetry.settings import TelemetrySettings

        TelemetrySettings.read(arguments.otlp, os.environ)
    is_reload_wanted = threading.Event()
    _handle_signals(ignored, terminal, is_reload_wanted)
    early = _start_early(source, socket_path)
    try:
        from trio_supervisor.cli.serve_run import ServeSettings, serve
        from trio_supervisor.process.notify.service_manager import ServiceManager

        settings = ServeSettings(
            arguments=arguments,
            source=source,
            socket_path=socket_path,
            began=began,
            early=early,
            adopted=adopted(),
            manager=ServiceManager.from_environment(os.environ),
            is_reload_wanted=is_reload_wanted,
            terminal=terminal,
            is_hangup_ignored=signal.SIGHUP in ignored,
        )
        serve(settings)
    except (TargetError, SpecError) as exc:
        if not arguments.watch:
            raise
        _stop_unused(early)
        _serve_again(exc, source, began, ignored)
    except _Terminated as exc:
        sys.exit(exc.exit_code)
    finally:
        _stop_unused(early)


def _handle_signals(
    ignored: Ignored, terminal: Terminal, is_reload_wanted: threading.Event
) -> None:
    """Handle signals until the controller does: exit on SIGTERM, remember SIGHUP."""
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGUSR1, _ignore)
    if signal.SIGHUP in ignored:  # by nohup(1)
        return

    def hang_up(number: int, _frame: object) -> None:
        if terminal.has_closed():
            raise _Terminated(number)
        is_reload_wanted.set()

    signal.signal(signal.SIGHUP, hang_up)


def _adopt() -> Callable[[], Any]:
    """Adopt the descriptors passed by systemd, before there is a child to inherit them.

    Returns a function that returns them: importing their type would take a while now.
    """
    if "LISTEN_FDS" in os.environ:
        from trio_supervisor.process.sockets.systemd_sockets import AdoptedDescriptors

        found = AdoptedDescriptors.from_environment(os.environ)
        return lambda: found

    def none() -> Any:
        from trio_supervisor.process.sockets.systemd_sockets import AdoptedDescriptors

        return AdoptedDescriptors()

    return none


def _stop_unused(early: EarlyServer | None) -> None:
    """Stop the early fork server if no controller adopted it."""
    if early is not None and (unused := early.adopt()) is not None:
        kill_server(unused)


def _serve_again(
    problem: SupervisorError, source: str, began: int, ignored: Ignored
) -> NoReturn:
    """Wait until the code changes, and execute `serve` again in a fresh interpreter."""
    ended: list[_Terminated] = []
    terminal = Terminal()

    def end(number: int, _frame: object) -> None:
        if number != signal.SIGHUP or terminal.has_closed():
            ended.append(_Terminated(number))
            raise ended[0]

    try:
        print(f"{PROGRAM}: {problem}", file=sys.stderr)
        signal.signal(signal.SIGTERM, end)
        if signal.SIGHUP not in ignored:
            signal.signal(signal.SIGHUP, end)
        print("waiting for a change", file=sys.stderr, flush=True)
        changed = wait_for_change(source, began)
    except _Terminated as exc:  # before the watch has begun
        sys.exit(exc.exit_code)
    except KeyboardInterrupt:
        # watchfiles turns any exception of a signal handler into a plain one.
        if ended:
            sys.exit(ended[0].exit_code)
        raise
    print(f"changed: {changed}; starting", file=sys.stderr, flush=True)
    restore(ignored)
    os.execv(sys.executable, sys.orig_argv)


def _ignore(_number: int, _frame: object) -> None:
    """Ignore SIGUSR1 (reopen log files): no file is open yet."""


def _terminate(number: int, _frame: object) -> None:
    raise _Terminated(number)


def _start_early(target: str, socket_path: str) -> EarlyServer | None:
    where, _ = split_target(target)
    if sys.platform != "linux":
        return None
    marker = os.urandom(16).hex()
    reference = Reference(target, import_path())
    environment = child_environment(os.environ, socket_path, marker)
    title = os.path.basename(where)
    plan = fork_server_plan(title, [reference], environment, is_early=True)
    try:
        return EarlyServer(marker, start_fork_server(plan))
    except OSError:
        return None  # the controller retries, and reports the error


def serve_socket(option: str | None, target: str) -> str:
    """Return the absolute path of the socket that ``serve`` listens at.

    That is *option*, else the environment variable, else ``supervisor.ipc`` beside the
    file of *target*; for a module, in the current directory.
    """
    if configured := option or os.environ.get(SOCKET_VARIABLE):
        return absolute(configured)
    where, _ = split_target(target)
    directory = os.path.dirname(absolute(where)) if is_path(where) else "."
    return absolute(os.path.join(directory, DEFAULT_SOCKET))
