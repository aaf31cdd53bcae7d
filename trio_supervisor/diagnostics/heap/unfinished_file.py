"""A file that has its name only once it is whole."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import Final

from attrs import define, field

from trio_supervisor.errors import HeapFileError

_MODE: Final = 0o600


@define(eq=False)
class UnfinishedFile:
    """A new file, of its owner alone; made by `create`."""

    path: str
    descriptor: int
    _directory: int
    """The one that *path* is in, whatever becomes of its name."""
    _name: str | None
    """That it has for the time being. None: none."""
    _is_over: bool = field(default=False, init=False)

    @classmethod
    def create(cls, path: str) -> UnfinishedFile:
        """Make a file that is to be at *path*, where nothing must be yet.

        Raises:
            HeapFileError: there is something, or no file can be made there.
        """
        try:
            directory = os.open(
                os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY
            )
        except OSError as exc:
            raise HeapFileError(f"{path}: {exc.strerror}") from None
        try:
            _require_nothing(path, directory)
            descriptor, name = _open(directory)
        except OSError as exc:
            os.close(directory)
            raise HeapFileError(f"{path}: {exc.strerror}") from None
        except BaseException:
            os.close(directory)
            raise
        return cls(path, descriptor, directory, name)

    def finish(self) -> None:
        """Give it its name.

        Raises:
            HeapFileError: there is something of that name by now, or it cannot be done.
        """
        source = self._name or f"/proc/self/fd/{self.descriptor}"
        try:
            # A link, other than a rename, never takes the place of anything.
            os.link(
                source,
                os.path.basename(self.path),
                src_dir_fd=self._directory,
                dst_dir_fd=self._directory,
                follow_symlinks=self._name is None,
            )
        except OSError as exc:
            raise HeapFileError(f"{self.path}: {exc.strerror}") from None

    def discard(self) -> None:
        """Let go of it: without its name it is gone. Again: does nothing."""
        if self._is_over:
            return
        self._is_over = True
        if self._name is not None:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._directory)
        os.close(self.descriptor)
        os.close(self._directory)


def _require_nothing(path: str, directory: int) -> None:
    name = os.path.basename(path)
    if not name:
        raise HeapFileError(f"{path}: that is a directory")
    with suppress(FileNotFoundError):
        os.stat(name, dir_fd=directory, follow_symlinks=False)
        raise HeapFileError(f"{path}: there is something of that name already")


def _open(directory: int) -> tuple[int, str | None]:
    """Open a new file; return its descriptor, and the name that it has, if any."""
    flags = os.O_WRONLY | os.O_CLOEXEC
    if hasattr(os, "O_TMPFILE"):
        with suppress(OSError):  # not on every file system
            # Without a name it goes when we do, however that comes.
            return os.open(".", flags | os.O_TMPFILE, _MODE, dir_fd=directory), None
    flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    name = f".heap-{secrets.token_hex(8)}.partial"
    return os.open(name, flags, _MODE, dir_fd=directory), name
