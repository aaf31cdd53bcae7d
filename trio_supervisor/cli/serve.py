"""``serve``: start the fork server first, then load all that a controller needs.

Both import trio and the application, which takes most of the time until all workers are
ready; so they do it at the same time.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any, NoReturn

from trio_supervisor.cli.watching import check_watchable, wait_for_change
from trio_supervisor.errors import SpecError, SupervisorError, TargetError
from trio_supervisor.link.listener import check_socket_path
from trio_supervisor.process.environment import (
    DEFAULT_SOCKET,
    SOCKET_VARIABLE,
    child_environment,
)
from trio_supervisor.process.fork_server_start import (
    EarlyServer,
    end_early,
    fork_server_plan,
    start_fork_server,
)
from trio_supervisor.process.sources import (
    Reference,
    absolute_target,
    is_path,
    split_target,
)


class _Terminated(KeyboardInterrupt):
    """SIGTERM came while everything was still being loaded."""


def run_serve(arguments: Namespace) -> None:
    """Serve the target in the foreground."""
    began = time.time_ns()
    # First of all: what a service manager handed over has the lowest numbers.
    adopted = _adopt()
    try:
        socket_path = serve_socket(arguments.socket, arguments.target)
        # Now: a service file may go to another directory when it is imported.
        source = absolute_target(arguments.target)
    except FileNotFoundError:
        problem = "this directory was removed; go to another one"
        raise TargetError(f"{arguments.target}: {problem}") from None
    check_socket_path(socket_path)
    if arguments.watch:
        check_watchable()
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGUSR1, _do_nothing)
    is_reload_wanted = threading.Event()
    signal.signal(signal.SIGHUP, lambda _number, _frame: is_reload_wanted.set())
    early = _start_early(source, socket_path)
    try:
        from trio_supervisor.cli.serving import Plan, serve
        from trio_supervisor.process.service_manager import ServiceManager

        plan = Plan(
            arguments=arguments,
            source=source,
            socket_path=socket_path,
            began=began,
            early=early,
            adopted=adopted(),
            manager=ServiceManager.from_environment(os.environ),
            is_reload_wanted=is_reload_wanted,
        )
        serve(plan)
    except (TargetError, SpecError) as exc:
        if not arguments.watch:
            raise
        _end_unused(early)
        _serve_again(exc, source, began)
    except _Terminated:
        sys.exit(128 + signal.SIGTERM)
    finally:
        _end_unused(early)


def _adopt() -> Callable[[], Any]:
    """Keep what a service manager handed over from all children, before there is any.

    Returns what gives it: loading all that knows of sockets would take a while now.
    """
    if "LISTEN_FDS" in os.environ:
        from trio_supervisor.process.adopted import AdoptedDescriptors

        found = AdoptedDescriptors.from_environment(os.environ)
        return lambda: found

    def nothing() -> Any:
        from trio_supervisor.process.adopted import AdoptedDescriptors

        return AdoptedDescriptors()

    return nothing


def _end_unused(early: EarlyServer | None) -> None:
    """End it where nobody came to adopt it, in the middle of its import."""
    if early is not None and (unused := early.adopt()) is not None:
        end_early(unused)


def _serve_again(problem: SupervisorError, source: str, began: int) -> NoReturn:
    """Wait for the code to change, and begin anew, with nothing of it imported."""
    print(f"trio_supervisor: {problem}", file=sys.stderr)
    ended = threading.Event()

    def end(_number: int, _frame: object) -> None:
        ended.set()
        raise _Terminated

    signal.signal(signal.SIGTERM, end)
    print("waiting for a change", file=sys.stderr, flush=True)
    try:
        changed = wait_for_change(source, began)
    except KeyboardInterrupt:
        # What watches makes a plain one of all that a signal raises.
        if ended.is_set():
            sys.exit(128 + signal.SIGTERM)
        raise
    print(f"changed: {changed}; starting", file=sys.stderr, flush=True)
    os.execv(sys.executable, sys.orig_argv)


def _do_nothing(_number: int, _frame: object) -> None:
    """What it asks for comes too early: no file is open yet."""


def _terminate(_number: int, _frame: object) -> None:
    raise _Terminated


def _start_early(target: str, socket_path: str) -> EarlyServer | None:
    where, _ = split_target(target)
    if sys.platform != "linux":
        return None
    marker = os.urandom(16).hex()
    reference = Reference(target, tuple(map(os.path.abspath, sys.path)))
    environment = child_environment(os.environ, socket_path, marker)
    title = os.path.basename(where)
    plan = fork_server_plan(title, [reference], environment, is_early=True)
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
