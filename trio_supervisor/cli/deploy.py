"""Print a systemd unit or a Dockerfile for an application."""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from argparse import Namespace
from collections.abc import Sequence
from math import ceil
from typing import Final

from attrs import frozen

from trio_supervisor.application import Application
from trio_supervisor.cli.check import load
from trio_supervisor.cli.connection import UsageError
from trio_supervisor.cli.deployment_texts import DELEGATE, DOCKERFILE, UNIT
from trio_supervisor.cli.find_target import find_target
from trio_supervisor.cli.serve import serve_socket
from trio_supervisor.policy.order import start_waves
from trio_supervisor.policy.shutdown import longest_stop
from trio_supervisor.process.cgroups.limits import CgroupLimits
from trio_supervisor.process.spawn.code_source import (
    absolute_target,
    is_path,
    split_target,
)

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HOMES: Final = ("/home/", "/root/", "/run/user/")
# What a controller needs in order to start processes as other users, and to stop them.
_USER_CAPABILITIES: Final = "CAP_CHOWN CAP_DAC_OVERRIDE CAP_KILL CAP_SETGID CAP_SETUID"
_MARGIN: Final = 10
_HTTP_PORT: Final = 8080


def run_unit(arguments: Namespace) -> None:
    """Print a systemd unit that serves the target."""
    target = arguments.target or find_target()
    application = _load(arguments, target)
    source = absolute_target(target)
    where, _ = split_target(source)
    directory = os.path.dirname(where) if is_path(where) else os.getcwd()
    name = arguments.name or _name_of(application, directory)
    if not _NAME.fullmatch(name):
        raise UsageError(f"--name: expected letters, digits, '_', '.' and '-': {name}")
    command = [sys.executable, "-m", "trio_supervisor", "serve"]
    command.append(where if is_path(where) and ":" not in target else source)
    settings = UnitSettings(
        name=name, command=command, directory=directory, user=arguments.user
    )
    print(unit_text(application, settings), end="")


def run_dockerfile(arguments: Namespace) -> None:
    """Print a Dockerfile whose image serves the target."""
    target = arguments.target or find_target()
    application = _load(arguments, target)
    where, _ = split_target(target)
    has_requirements = os.path.isfile("requirements.txt")
    text = dockerfile_text(
        application,
        os.path.relpath(where) if is_path(where) else target,
        install=_REQUIREMENTS if has_requirements else _PROJECT * _is_project(),
    )
    print(text, end="")


def _load(arguments: Namespace, target: str) -> Application:
    socket_path = serve_socket(None, target)
    return load(target, socket_path, arguments.import_timeout)


def _name_of(application: Application, directory: str) -> str:
    """Return the application's name, or that of its directory."""
    if application.name != "application":
        return application.name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", os.path.basename(directory)) or "app"


@frozen(kw_only=True)
class UnitSettings:
    """What a unit contains beside the application's own settings."""

    name: str
    command: Sequence[str]
    directory: str
    user: str | None


def unit_text(application: Application, settings: UnitSettings) -> str:
    """Return a systemd unit for *application*."""
    has_users = any(
        getattr(service, name, None) is not None
        for service in application.services
        for name in ("user", "group", "supplementary_groups")
    )
    has_limits = any(CgroupLimits.of(each).settings for each in application.services)
    user = "DynamicUser=yes"
    if settings.user is not None:
        user = f"User={_escaped(settings.user)}"
    elif has_users:
        user = "# Some services run as other users.\nUser=root"
    paths = [settings.directory, settings.command[0]]
    in_home = any(f"{path}/".startswith(_HOMES) for path in paths)
    return UNIT.format(
        name=settings.name,
        command=" ".join(map(_quoted, settings.command)),
        directory=_escaped(settings.directory),
        stop_time=_stop_time(application),
        start_time=_start_time(application),
        user=user,
        capabilities=_USER_CAPABILITIES if has_users else "",
        no_new_privileges="yes",
        delegate=DELEGATE if has_limits else "",
        protect_cgroups="no" if has_limits else "yes",
        protect_home="read-only" if in_home else "yes",
        writable="".join(
            f"ReadWritePaths={_quoted(path)}\n"
            for path in _log_directories(application, settings.directory)
        ),
    )


def _stop_time(application: Application) -> int:
    timeouts = {service.name: service.stop_timeout for service in application.services}
    longest, _ = longest_stop(application.needs(), timeouts)
    limit = application.stop_timeout
    return ceil(longest if limit is None else min(longest, limit)) + _MARGIN


def _start_time(application: Application) -> int:
    times = {
        service.name: service.startup_timeout or 0.0 for service in application.services
    }
    waves = start_waves(times.keys(), application.needs())
    return ceil(sum(max(times[name] for name in wave) for wave in waves)) + _MARGIN


def _log_directories(application: Application, directory: str) -> list[str]:
    services = application.services
    files = (file for service in services for file in service.log_files)
    found = {os.path.join(directory, os.path.dirname(file)) for file in files if file}
    return sorted(path.rstrip("/") or "/" for path in found)


def _escaped(text: str) -> str:
    """Return *text* without specifiers, systemd.unit(5)."""
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """Return *word* as one word of a command line of systemd.service(5)."""
    escaped = _escaped(word).replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", escaped):
        return escaped
    inner = escaped.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'


_REQUIREMENTS: Final = (
    "COPY requirements.txt .\n"
    "RUN --mount=type=cache,target=/root/.cache/pip pip install -r requirements.txt\n"
)
_PROJECT: Final = (
    "COPY . /source\n"
    "RUN --mount=type=cache,target=/root/.cache/pip pip install /source\n"
)


def _is_project() -> bool:
    """Return whether pip can install the current directory."""
    try:
        with open("pyproject.toml", "rb") as file:
            return "project" in tomllib.load(file)
    except (OSError, ValueError, RecursionError):
        return False


def dockerfile_text(application: Application, target: str, *, install: str) -> str:
    """Return a Dockerfile for *application*.

    Args:
        target: As `serve` gets it, relative to the directory of the build.
        install: Instructions that install what the application needs.
    """
    ports = {
        listen.port
        for service in application.services
        for listen in service.sockets.values()
        if listen.port
    }
    return DOCKERFILE.format(
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        install=install,
        ports=" ".join(map(str, sorted(ports | {_HTTP_PORT}))),
        target=json.dumps(target),
    )
