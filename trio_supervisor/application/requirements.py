"""List what must exist before services are started. Pure.

Only what is certain is listed: a job may install a program or create a directory, and a
dependency may mount one. `process.preflight` checks the list.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TypeAlias

from attrs import frozen

from trio_supervisor.application.application import Application
from trio_supervisor.application.command import Command
from trio_supervisor.application.group import AnyService
from trio_supervisor.application.templates import filled
from trio_supervisor.policy.log_target import LogTarget, parse_log_target
from trio_supervisor.policy.order import Needs, needs_of


@frozen(kw_only=True)
class Program:
    """A program that must be executable."""

    field: str
    """Path of the option, such as ``services[1].arguments[0]``."""
    service: str
    name: str
    """A path, or a name that is searched for on PATH."""
    directory: str | None
    """Directory in which it runs; None: the controller's."""
    environment: Mapping[str, str]
    """Variables that its service adds to the controller's environment."""


@frozen(kw_only=True)
class Directory:
    """A directory that must be accessible."""

    field: str
    service: str
    path: str


@frozen(kw_only=True)
class OutputFile:
    """A file that must be writable, or possible to create."""

    field: str
    service: str
    path: str


@frozen(kw_only=True)
class LogService:
    """A log service of this machine that must listen."""

    field: str
    service: str
    target: LogTarget


@frozen(kw_only=True)
class InputFile:
    """A file that must be readable."""

    field: str
    service: str
    path: str


@frozen(kw_only=True)
class SocketFile:
    """A path at which a Unix socket must be possible to bind."""

    field: str
    service: str
    path: str


Requirement: TypeAlias = (
    Program | Directory | InputFile | OutputFile | LogService | SocketFile
)


def requirements_of(
    application: Application, names: Collection[str], *, with_sockets: bool = False
) -> list[Requirement]:
    """Return what the services *names* of *application* need in order to start.

    Args:
        with_sockets: Whether to include their sockets, which are yet to be bound.
    """
    found: list[Requirement] = []
    needs = application.needs()
    for service in application.services:
        path = application.path(service.name)
        service = filled(service, 0)  # as its first worker has it
        if service.name in names:
            found += _of_service(service, path, needs)
        if with_sockets:
            found += _sockets(service, path)
    return found


def _of_service(service: AnyService, path: str, needs: Needs) -> Iterator[Requirement]:
    waits_for = {service.name} | needs_of({service.name}, needs)
    conditions = {how for name in waits_for for how in needs.get(name, {}).values()}
    if "exited_ok" in conditions:
        return  # the job may create what is missing now
    for program in _programs(service, path):
        # A dependency may mount or create a directory, but not change PATH.
        if not conditions or "/" not in program.name:
            yield program
    if conditions:
        return
    if service.directory is not None:
        field = f"{path}.directory"
        yield Directory(field=field, service=service.name, path=service.directory)
    if service.stdin is not None:
        field = f"{path}.stdin"
        yield InputFile(field=field, service=service.name, path=service.stdin)
    for name in ("log_file", "stderr_log_file"):
        if (file := getattr(service, name)) is not None:
            field = f"{path}.{name}"
            yield OutputFile(field=field, service=service.name, path=file)
    if service.log_to is not None:
        target = parse_log_target(service.log_to)
        if target.transport == "unix":  # a host may come up later
            field = f"{path}.log_to"
            yield LogService(field=field, service=service.name, target=target)


def _programs(service: AnyService, path: str) -> Iterator[Program]:
    def program(field: str, name: str, directory: str | None) -> Program:
        return Program(
            field=f"{path}.{field}",
            service=service.name,
            name=name,
            directory=directory,
            environment=service.environment,
        )

    if isinstance(service, Command):
        yield program("arguments[0]", service.arguments[0], service.directory)
        for field in ("startup", "readiness", "liveness"):
            probe = getattr(service, field)
            if probe is not None and probe.kind == "command":
                yield program(f"{field}.arguments[0]", probe.arguments[0], None)
    if service.pre_stop is not None:
        yield program("pre_stop[0]", service.pre_stop[0], service.directory)


def _sockets(service: AnyService, path: str) -> Iterator[SocketFile]:
    for name, listen in service.sockets.items():
        if listen.kind == "unix":
            field = f"{path}.sockets[{name!r}]"
            yield SocketFile(field=field, service=service.name, path=listen.path)
