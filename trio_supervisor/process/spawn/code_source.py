"""Where a child gets the user's code from. Standard library only."""

from __future__ import annotations

import os
from typing import Any, Final, NamedTuple

from trio_supervisor.process.spawn.working_directory import absolute

DEFAULT_NAME: Final = "application"


class Reference(NamedTuple):
    """A target by name, as ``/path/service.py:application``."""

    target: str
    path: tuple[str, ...]
    """``sys.path`` of the controller."""


class Pickled(NamedTuple):
    """An object by value; what it refers to is imported by name."""

    preparation: dict[str, Any]
    """As of multiprocessing's spawn method: sys.path, and where ``__main__`` is."""
    data: bytes


def split_target(target: str) -> tuple[str, str]:
    """Return the path or module of *target*, and the name in it."""
    where, colon, name = target.rpartition(":")
    if not colon or (name and not name.replace(".", "").isidentifier()):
        return target, DEFAULT_NAME  # a colon may be part of a directory's name
    return where, name or DEFAULT_NAME


def is_path(where: str) -> bool:
    """Whether a target names a file, rather than a module."""
    return where.endswith(".py") or os.sep in where


def absolute_target(target: str) -> str:
    """Return *target* so that it means the same in any directory."""
    where, name = split_target(target)
    return f"{absolute(where)}:{name}" if is_path(where) else f"{where}:{name}"


def shown_path(path: str, start: str | None = None) -> str:
    """Return an absolute *path* for a message: from *start* on, where it is below it.

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
