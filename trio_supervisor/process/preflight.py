"""Check before the start that programs, directories and files exist; change nothing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from typing import assert_never

from trio_supervisor.application.requirements import (
    Directory,
    InputFile,
    LogService,
    OutputFile,
    Program,
    Requirement,
    SocketFile,
)
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.log_target import LogTarget
from trio_supervisor.process.input import open_input
from trio_supervisor.process.output.log_socket import connected_socket
from trio_supervisor.process.spawn.programs import program_problem


def without_removed(requirements: Iterable[Requirement]) -> list[Requirement]:
    """Leave out what may come back while services that ran before run again.

    The directory of a log file that was removed is recreated, and a log service that
    does not listen may be restarting.
    """
    return [each for each in requirements if not _may_come_back(each)]


def _may_come_back(requirement: Requirement) -> bool:
    if isinstance(requirement, OutputFile):
        return not os.path.isdir(os.path.dirname(requirement.path) or ".")
    return isinstance(requirement, LogService)


def problems_of(
    requirements: Iterable[Requirement], environment: Mapping[str, str]
) -> list[SpecError]:
    """Return one error for each unmet requirement, with its field and service.

    Args:
        environment: Environment of the controller, to which services add variables.
    """
    errors = []
    for requirement in requirements:
        if problem := _problem(requirement, environment):
            text = f"{requirement.service}: {problem}"
            errors.append(SpecError(requirement.field, text))
    return errors


def _problem(requirement: Requirement, environment: Mapping[str, str]) -> str:
    match requirement:
        case Program(name=name, directory=directory):
            if directory is not None and directory_problem(directory):
                return ""  # reported for the directory itself
            merged = {**environment, **requirement.environment}
            return program_problem(name, merged, directory)
        case Directory(path=path):
            problem = directory_problem(path)
            return problem and f"the working directory {path} {problem}"
        case InputFile(path=path):
            problem = input_problem(path)
            return problem and f"cannot read {path}: {problem}"
        case OutputFile(path=path):
            problem = output_problem(path)
            return problem and f"cannot write to {path}: {problem}"
        case LogService(target=target):
            problem = log_service_problem(target)
            return problem and f"cannot log to {target}: {problem}"
        case SocketFile(path=path):
            parent = os.path.dirname(path) or "."
            problem = directory_problem(parent)
            return problem and f"cannot listen on unix:{path}: {parent} {problem}"
    assert_never(requirement)


def directory_problem(path: str) -> str:
    """Return why *path* cannot be a working directory; empty: it can."""
    try:
        found = os.stat(path)
    except OSError as exc:
        return _unreachable(exc)
    if not stat.S_ISDIR(found.st_mode):
        return "is not a directory"
    if not _may(path, os.X_OK):
        mode = stat.S_IMODE(found.st_mode)
        return f"cannot be entered by user {os.geteuid()} (mode 0{mode:o})"
    return ""


def input_problem(path: str) -> str:
    """Return why *path* cannot be a standard input; empty: it can."""
    try:
        os.close(open_input(path))
    except OSError as exc:
        return exc.strerror or str(exc)
    return ""


def output_problem(path: str) -> str:
    """Return why *path* cannot be appended to; empty: it can, or that is unknown.

    The file is not created, and only a regular file is opened.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return _parent_problem(os.path.dirname(os.path.abspath(path)))
    except OSError as exc:
        return f"it {_unreachable(exc)}"
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link; name the file itself"
    if stat.S_ISDIR(found.st_mode):
        return "it is a directory"
    if not stat.S_ISREG(found.st_mode):
        return ""  # a device, or a FIFO that may still get a reader
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        os.close(os.open(path, flags))
    except OSError as exc:
        return exc.strerror or str(exc)
    return ""


def log_service_problem(target: LogTarget) -> str:
    """Return why no lines can be sent to *target*, a Unix socket; empty: they can."""
    try:
        connected_socket(target).close()
    except OSError as exc:
        match exc.errno:
            case errno.ECONNREFUSED:
                return "nothing listens at the socket"
            case errno.EPROTOTYPE:
                return "it is not a datagram socket"
        return f"the socket {_unreachable(exc)}"
    return ""


def _parent_problem(parent: str) -> str:
    try:
        found = os.stat(parent)
    except FileNotFoundError:
        return f"directory {parent} does not exist; create it"
    except OSError as exc:
        return f"{parent} {_unreachable(exc)}"
    if not stat.S_ISDIR(found.st_mode):
        return f"{parent} is not a directory"
    if not _may(parent, os.W_OK | os.X_OK):
        mode = stat.S_IMODE(found.st_mode)
        return f"user {os.geteuid()} cannot create files in {parent} (mode 0{mode:o})"
    return ""


def _unreachable(exc: OSError) -> str:
    match exc.errno:
        case errno.ENOENT:
            return "does not exist"
        case errno.ENOTDIR:
            return "does not exist: a part of its path is not a directory"
        case errno.EACCES:
            return f"is not accessible for user {os.geteuid()}"
    return f"is not accessible: {exc.strerror}"


def _may(path: str, mode: int) -> bool:
    is_effective = os.access in os.supports_effective_ids
    return os.access(path, mode, effective_ids=is_effective)
