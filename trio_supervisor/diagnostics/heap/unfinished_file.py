"""Create a file that gets its name only once it is complete."""

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
    """A new file, readable by its owner only; made by `create`."""

    path: str
    descriptor: int
    _directory: int
    """Descriptor of the directory, which is used even if it is renamed."""
    _name: str | None
    """Its temporary name. None: it has none (O_TMPFILE)."""
    _is_over: bool = field(default=False, init=False)

    @classmethod
    def create(cls, path: str) -> UnfinishedFile:
        """Create a file that will be named *path*, which must not exist.

        Raises:
            HeapFileError: *path* exists, or no file can be created there.
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
        """Give the file its name.

        Raises:
            HeapFileError: *path* exists by now, or the file cannot be linked.
        """
        source = self._name or f"/proc/self/fd/{self.descriptor}"
        try:
            # Unlike a rename, a link never replaces a file.
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
        """Close the file, which removes it if unnamed. Calling it twice is harmless."""
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
        raise HeapFileError(f"{path}: is a directory")
    with suppress(FileNotFoundError):
        os.stat(name, dir_fd=directory, follow_symlinks=False)
        raise HeapFileError(f"{path}: already exists")


def _open(directory: int) -> tuple[int, str | None]:
    """Open a new file; return its descriptor and its temporary name, if any."""
    flags = os.O_WRONLY | os.O_CLOEXEC
    if hasattr(os, "O_TMPFILE"):
        with suppress(OSError):  # not on every file system
            # An unnamed file vanishes with this process, even if that is killed.
            return os.open(".", flags | os.O_TMPFILE, _MODE, dir_fd=directory), None
    flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    name = f".heap-{secrets.token_hex(8)}.partial"
    return os.open(name, flags, _MODE, dir_fd=directory), name
