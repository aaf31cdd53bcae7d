"""Resolve paths relative to the working directory, keeping symbolic links in its name.

After ``cd current; serve service.py``, with ``current`` a symbolic link, the system
knows only the directory that the link pointed to, but the shell has the link in
``$PWD``. A reload then follows the link to its new destination. Standard library only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PATH_ONLY = getattr(os, "O_PATH", os.O_RDONLY)


def working_directory() -> str:
    """Return the current directory, by the name in ``$PWD`` if that points to it.

    Raises:
        FileNotFoundError: it was removed.
    """
    name = os.environ.get("PWD", "")
    if os.path.isabs(name):
        with suppress(OSError):
            if os.path.samefile(name, os.curdir):
                return name
    return os.getcwd()


def absolute(path: str) -> str:
    """Return *path* as an absolute path, with symbolic links not resolved.

    Raises:
        FileNotFoundError: it is relative, and the current directory was removed.
    """
    if os.path.isabs(path):
        return os.path.normpath(path)
    return os.path.normpath(os.path.join(working_directory(), path))


def import_path() -> tuple[str, ...]:
    """Return ``sys.path`` as absolute paths, based on `working_directory`."""
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
    """A directory that was entered temporarily; made by `enter`."""

    def __init__(self, back: int | None = None) -> None:
        self.is_kept = False
        self._back = back
        """Descriptor of the previous directory; None: it is the same."""

    def keep(self) -> None:
        """Stay in the directory when the block is left."""
        self.is_kept = True

    @contextmanager
    def left(self) -> Iterator[None]:
        """Change to the previous directory for the length of the block."""
        if self._back is None:
            yield
            return
        # Not by its name: a symbolic link may have another destination by then.
        inside = os.open(os.curdir, _PATH_ONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fchdir(self._back)
            try:
                yield
            finally:
                os.fchdir(inside)
        finally:
            os.close(inside)


@contextmanager
def enter(directory: str | None) -> Iterator[EnteredDirectory]:
    """Change to *directory*, and back when the block is left unless `keep` was called.

    Going back works even if the previous directory was removed.

    Args:
        directory: None: do not change it.

    Raises:
        OSError: *directory* does not exist, or must not be entered.
    """
    if directory is None or _is_here(directory):
        yield EnteredDirectory()
        return
    back = os.open(os.curdir, _PATH_ONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(directory)
        entered = EnteredDirectory(back)
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
