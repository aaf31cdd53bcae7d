"""Find out why the system cannot execute a program."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Mapping
from typing import Final

from trio_supervisor.process.spawn.executables import binary_problem

_IS_LINUX: Final = sys.platform == "linux"
# Length of the beginning of a file that holds its format and the loader's name.
_HEAD: Final = 4096
# BINPRM_BUF_SIZE of Linux: a longer first line is cut.
_LINE: Final = 255
# An interpreter may itself be a script; Linux follows five levels.
_MAX_DEPTH: Final = 5
_BOM: Final = b"\xef\xbb\xbf"


def program_problem(
    name: str, environment: Mapping[str, str], directory: str | None
) -> str:
    """Return why *name* cannot be executed; empty: it can, or that is unknown.

    Args:
        environment: Its PATH is searched for a name without a slash.
        directory: Working directory of the program; None: the current one.
    """
    if "/" in name:
        problem = _problem(name, environment, directory)
        return problem and f"{name} {problem}"
    # As subprocess does: without PATH, the system's default path is searched.
    places = os.get_exec_path({"PATH": environment.get("PATH", os.defpath)})
    first = ""
    for place in places if name else []:
        path = os.path.join(place, name)
        if os.path.lexists(os.path.join(directory or "", path)):
            problem = _problem(path, environment, directory)
            if not problem:
                return ""
            first = first or f"{path} {problem}"
    path = ":".join(places)
    return first or f"program {name!r} not found in PATH ({path or 'empty'})"


def _problem(
    path: str, environment: Mapping[str, str], directory: str | None, depth: int = 0
) -> str:
    """Return what is wrong with the file *path*, as text that follows its name."""
    full = os.path.join(directory or "", path)
    try:
        found = os.stat(full)
    except OSError as exc:
        return _unreachable(full, exc)
    if stat.S_ISDIR(found.st_mode):
        return "is a directory"
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    if not os.access(full, os.X_OK, effective_ids=_HAS_EFFECTIVE):
        return _forbidden(found.st_mode)
    try:
        with open(full, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return ""  # a binary that cannot be read may still be executable
    if not head:
        return "is empty"
    if head.startswith(b"#!"):
        return _script_problem(head, environment, directory, depth)
    if not _IS_LINUX:
        return ""
    if head.startswith(_BOM + b"#!"):
        return "begins with a byte-order mark, which hides its #! line; remove it"
    return binary_problem(path, head)


_HAS_EFFECTIVE: Final = os.access in os.supports_effective_ids


def _unreachable(full: str, exc: OSError) -> str:
    match exc.errno:
        case errno.ENOENT if os.path.islink(full):
            return f"is a symbolic link to {os.readlink(full)}, which does not exist"
        case errno.ENOENT:
            return "does not exist"
        case errno.ENOTDIR:
            return "does not exist: a part of its path is not a directory"
        case errno.EACCES:
            return f"is not accessible for user {os.geteuid()}"
    return f"is not accessible: {exc.strerror}"


def _forbidden(mode: int) -> str:
    shown = f"mode 0{stat.S_IMODE(mode):o}"
    if not mode & 0o111:
        return f"is not executable ({shown}); run chmod +x"
    return (
        f"is not executable for user {os.geteuid()} ({shown}, or its file system is "
        f"mounted noexec)"
    )


def _script_problem(
    head: bytes, environment: Mapping[str, str], directory: str | None, depth: int
) -> str:
    """Return what is wrong with the #! line that *head* begins with."""
    line, newline, _ = head[2:_LINE].partition(b"\n")
    if not newline and len(head) >= _LINE:
        return ""  # truncated by the kernel, at a length that depends on its version
    # For the kernel, a carriage return is part of the name.
    words = os.fsdecode(line.strip(b" \t")).replace("\t", " ")
    interpreter, _, argument = words.partition(" ")
    if not interpreter:
        return "has an empty #! line"
    if depth >= _MAX_DEPTH:
        return f"has a chain of more than {_MAX_DEPTH} scripts in its #! line"
    problem = _problem(interpreter, environment, directory, depth + 1)
    if problem and interpreter.endswith("\r"):
        return _crlf(f"the interpreter {interpreter!r}")
    if problem:
        return f"names the interpreter {interpreter} in its #! line, which {problem}"
    if os.path.basename(interpreter) == "env":
        return _env_problem(argument.strip(" "), environment, directory)
    return ""


def _env_problem(
    argument: str, environment: Mapping[str, str], directory: str | None
) -> str:
    """Return why env(1) cannot execute its argument."""
    name = argument  # the kernel passes all of it as one argument
    if argument.startswith("-S"):
        name = argument[2:].strip(" ").partition(" ")[0]
    if not name or name.startswith("-") or set(name) & set("=$\\'\""):
        return ""  # options, variables and quotes are interpreted by env itself
    if not (problem := program_problem(name, environment, directory)):
        return ""
    if name.endswith("\r"):
        return _crlf(f"a program {name!r}")
    if " " in name:
        return (
            f"runs env in its #! line, which looks for one program {name!r}; write "
            f"#!/usr/bin/env -S {name}"
        )
    return f"runs {name} through env in its #! line: {problem}"


def _crlf(wanted: str) -> str:
    return (
        f"has CRLF line endings, so its #! line names {wanted}; convert it to LF line "
        f"endings"
    )
