"""Describe where a child gets the application's code from. Standard library only."""

from __future__ import annotations

import os
from typing import Any, Final, NamedTuple

from trio_supervisor.process.spawn.working_directory import absolute

DEFAULT_NAME: Final = "application"
PROCFILE: Final = "Procfile"
PYPROJECT: Final = "pyproject.toml"


class Reference(NamedTuple):
    """A target by name, such as ``/path/service.py:application``."""

    target: str
    path: tuple[str, ...]
    """``sys.path`` of the controller."""


class Pickled(NamedTuple):
    """A pickled object; the functions that it refers to are imported by name."""

    preparation: dict[str, Any]
    """From multiprocessing's spawn method: ``sys.path``, the file of ``__main__`` …"""
    data: bytes


def split_target(target: str) -> tuple[str, str]:
    """Return the path or module of *target*, and the attribute in it."""
    where, colon, name = target.rpartition(":")
    if not colon or (name and not name.replace(".", "").isidentifier()):
        return target, DEFAULT_NAME  # the colon may be part of a directory name
    return where, name or DEFAULT_NAME


def is_path(where: str) -> bool:
    """Return whether a target names a file, not a module."""
    return where.endswith(".py") or os.sep in where or is_config(where)


def is_config(where: str) -> bool:
    """Return whether a target names a configuration file, which contains no code."""
    name = os.path.basename(where)
    return name.endswith(".toml") or name.partition(".")[0] == PROCFILE


def absolute_target(target: str) -> str:
    """Return *target* with an absolute path."""
    where, name = split_target(target)
    return f"{absolute(where)}:{name}" if is_path(where) else f"{where}:{name}"


def shown_path(path: str, start: str | None = None) -> str:
    """Return *path* for a message: relative to *start* if it is below that.

    Args:
        start: A directory; None: the current one.
    """
    if not os.path.isabs(path):
        return path
    try:
        short = os.path.relpath(path, start)
    except (OSError, ValueError):  # the current directory was removed
        return path
    return path if short.startswith("..") else short


def current_directory() -> str | None:
    """Return the current directory; None: it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return None
