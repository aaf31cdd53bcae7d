"""The directory that we were started in, by the name that it was entered by.

``cd current; serve service.py``, with ``current`` a symbolic link: the system knows the
directory that the link led to then, the shell names the link in ``$PWD``. A reload
takes what the link leads to by then. Standard library only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PATH_ONLY = getattr(os, "O_PATH", os.O_RDONLY)


def working_directory() -> str:
    """Return the current directory, by the name in ``$PWD`` if that leads to it.

    Raises:
        FileNotFoundError: it was removed.
    """
    told = os.environ.get("PWD", "")
    if os.path.isabs(told):
        with suppress(OSError):
            if os.path.samefile(told, os.curdir):
                return told
    return os.getcwd()


def absolute(path: str) -> str:
    """Return *path* so that it means the same in any directory; links stay links.

    Raises:
        FileNotFoundError: it is relative, and this directory was removed.
    """
    if os.path.isabs(path):
        return os.path.normpath(path)
    return os.path.normpath(os.path.join(working_directory(), path))


def import_path() -> tuple[str, ...]:
    """Return ``sys.path`` in absolute paths, below `working_directory` by its name."""
    try:
        here, name = os.getcwd(), working_directory()
    except FileNotFoundError:
        return tuple(path for path in sys.path if os.path.isabs(path))
    return tuple(_renamed(os.path.abspath(path), here, name) for path in sys.path)


def _renamed(path: str, here: str, name: str) -> str:
    if path == here or path.startswith(os.path.join(here, "")):
        return name + path[len(here) :]
    return path


class EnteredDirectory:
    """A directory that was entered for a trial; made by `enter`."""

    def __init__(self) -> None:
        self.is_kept = False

    def keep(self) -> None:
        """Stay there when the block is left."""
        self.is_kept = True


@contextmanager
def enter(directory: str | None) -> Iterator[EnteredDirectory]:
    """Work in *directory*, and go back when the block is left, unless told to stay.

    The way back is open even where that directory was removed.

    Args:
        directory: None: stay where we are.

    Raises:
        OSError: *directory* is gone, or may not be entered.
    """
    entered = EnteredDirectory()
    if directory is None or _is_here(directory):
        yield entered
        return
    back = os.open(os.curdir, _PATH_ONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(directory)
        try:
            yield entered
        finally:
            if not entered.is_kept:
                os.fchdir(back)
    finally:
        os.close(back)


def _is_here(directory: str) -> bool:
    try:
        return os.path.samefile(directory, os.curdir)
    except FileNotFoundError:
        return False
