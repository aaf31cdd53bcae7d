"""Check an application without starting anything."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from typing import Any

import trio

from trio_supervisor.application import Application
from trio_supervisor.application.places import located
from trio_supervisor.cli.connection import Deadline, SupervisorConnection
from trio_supervisor.cli.find_target import find_target
from trio_supervisor.cli.output import print_json, print_line
from trio_supervisor.cli.serve import serve_socket
from trio_supervisor.controller.capacity import check_capacity
from trio_supervisor.controller.launch.preflight import check_startable
from trio_supervisor.controller.launch.socket_keys import socket_keys
from trio_supervisor.errors import (
    ListenError,
    PlatformError,
    SpecError,
    SupervisorError,
    TargetError,
)
from trio_supervisor.link.listener import check_socket_path
from trio_supervisor.process.imports.import_check import declare
from trio_supervisor.process.sockets.sockets import open_sockets
from trio_supervisor.process.spawn.code_source import Reference, absolute_target
from trio_supervisor.process.spawn.environment import child_environment
from trio_supervisor.process.spawn.working_directory import import_path

_ANSWER_WITHIN = 2.0
"""How long a supervisor that runs already may take to accept a connection [s]."""


def run_check(arguments: Namespace) -> None:
    """Report every mistake that can be found without a start; exit with 0 or 10."""
    target = arguments.target or find_target()
    socket_path = serve_socket(arguments.socket, target)
    check_socket_path(socket_path)
    try:
        application = load(target, socket_path, arguments.import_timeout)
        problems, is_running = trio.run(_problems, application, socket_path)
    except (SpecError, TargetError, PlatformError) as exc:
        if not arguments.json:
            raise
        print_json({"target": target, "is_valid": False, "problems": [str(exc)]})
        sys.exit(exc.exit_code)
    if arguments.json:
        print_json(_report(target, application, problems))
    elif problems:
        raise SpecError.of(problems)
    else:
        print_line(f"{target}: valid ({_summary(application)})")
        if is_running and socket_keys(application)[0]:
            print_line("it is being served, so its listening sockets were not tried")
    if problems:
        sys.exit(SpecError.exit_code)


def load(target: str, socket_path: str, timeout: float) -> Application:
    """Import *target* in a process of its own; return what it declares.

    Raises:
        TargetError, SpecError, PlatformError: it cannot be imported, is invalid, or
            takes longer than *timeout* [s].
    """
    reference = Reference(absolute_target(target), import_path())
    environment = child_environment(os.environ, socket_path, os.urandom(16).hex())
    try:
        declared = trio.run(declare, reference, environment, timeout)
    except OSError as exc:
        raise PlatformError(f"cannot start a process: {exc.strerror}") from None
    return declared.application


async def _problems(
    application: Application, socket_path: str
) -> tuple[list[SpecError], bool]:
    """Return what would fail at the start, and whether it is being served now."""
    problems: list[SpecError] = []
    names = [service.name for service in application.services if service.count]
    try:
        await check_startable(
            application,
            names,
            os.environ,
            socket_path=socket_path,
            with_sockets=True,
        )
    except SpecError as exc:
        problems += exc.errors
    try:
        workers = sum(service.count for service in application.services)
        check_capacity(workers, is_captured=True, may_raise=True)
    except PlatformError as exc:
        problems.append(SpecError("", str(exc)))
    is_running = _is_served(socket_path)
    if not is_running:
        problems += await _socket_problems(application)
    return problems, is_running


def _is_served(socket_path: str) -> bool:
    try:
        with SupervisorConnection(socket_path, Deadline(_ANSWER_WITHIN)):
            return True
    except SupervisorError:
        return False


async def _socket_problems(application: Application) -> list[SpecError]:
    """Return an error for each listening socket that cannot be bound."""
    problems = []
    listens, keys = socket_keys(application)
    for service in application.services:
        for name, key in keys.get(service.name, {}).items():
            if (listen := listens.pop(key, None)) is None:
                continue  # another service's, too
            try:
                async with open_sockets({key: listen}):
                    pass
            except ListenError as exc:
                path = f"{application.path(service.name)}.sockets[{name!r}]"
                problems.append(located(SpecError(path, str(exc)), application.places))
    return problems


def _summary(application: Application) -> str:
    services = application.services
    processes = sum(service.count for service in services)
    return (
        f"{len(services)} service{'s' * (len(services) != 1)}, "
        f"{processes} process{'es' * (processes != 1)}"
    )


def _report(
    target: str, application: Application, problems: list[SpecError]
) -> dict[str, Any]:
    return {
        "target": target,
        "is_valid": not problems,
        "services": {service.name: service.count for service in application.services},
        "problems": list(map(str, problems)),
    }
