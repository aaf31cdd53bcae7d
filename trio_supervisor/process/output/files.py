"""Files that children's output goes to; another program rotates them."""

from __future__ import annotations

import errno
import logging
import os
import stat
from contextlib import suppress
from functools import partial
from typing import Final

from attrs import define, field

from trio_supervisor.errors import SpecError
from trio_supervisor.owned_files import check_links
from trio_supervisor.process.output.destination import Destination
from trio_supervisor.process.output.rendering import notice_of

logger = logging.getLogger(__name__)

_MODE: Final = 0o640
# The pace of a disk is the pace of who writes to it, with us or without. One that
# hangs for longer, as a network's may, must not hold up a worker.
_PATIENCE: Final = 1.0
# There may be a file for each worker, all on the same full disk.
_QUEUE_SIZE: Final = 1024 * 1024
_FLAGS: Final = (
    os.O_WRONLY
    | os.O_APPEND
    | os.O_CREAT
    | os.O_CLOEXEC
    | os.O_NOCTTY
    | os.O_NOFOLLOW
    | os.O_NONBLOCK  # a fifo that nobody reads is an error, not a wait
)


def open_file(path: str, field_name: str) -> int:
    """Open *path* for appending, made with mode 0640 if it is not there.

    Its directory may be a symbolic link of our own or of root, the file itself not: in
    a directory that others may write to, they would choose what we append to.

    Raises:
        SpecError: *field_name* names a file that cannot be written.
    """
    try:
        check_links(os.path.dirname(path))
        return os.open(path, _FLAGS, _MODE)
    except OSError as exc:
        raise SpecError(
            field_name, f"cannot write to {path}: {_reason(path, exc)}"
        ) from exc


def _reason(path: str, exc: OSError) -> str:
    match exc.errno:
        case errno.EPERM if exc.filename not in (None, path):
            return f"{exc.strerror}: {exc.filename}"
        case errno.ENOENT:
            return f"there is no directory {os.path.dirname(path)}; create it"
        case errno.ELOOP:
            return "it is a symbolic link; name the file itself"
        case errno.ENXIO:
            return "it is a fifo that nobody reads, or a socket"
    return exc.strerror or str(exc)


@define(eq=False)
class _File:
    destination: Destination
    users: set[str] = field(factory=set)


@define(eq=False)
class OutputFiles:
    """The open ones, each once: children that share a file do not mix within a line."""

    _files: dict[str, _File] = field(factory=dict, init=False)
    _known: set[str] = field(factory=set, init=False)
    """All that were open once: their directories were there."""

    @property
    def destinations(self) -> list[Destination]:
        """Of all files."""
        return [file.destination for file in self._files.values()]

    def open(self, path: str, user: str, field_name: str) -> Destination:
        """Return where to write for *path*, which is kept open for *user*.

        Raises:
            SpecError: see `open_file`.
        """
        path = os.path.abspath(path)
        if (file := self._files.get(path)) is None:
            if path in self._known:
                self._make_directory(path)
            descriptor = open_file(path, field_name)
            self._known.add(path)
            destination = Destination(
                descriptor,
                notice_of("raw"),
                patience=_PATIENCE,
                limit=_QUEUE_SIZE,
                is_owner=True,
                on_problem=partial(_log_problem, path),
            )
            file = self._files[path] = _File(destination)
        file.users.add(user)
        return file.destination

    def has_one_user(self, path: str) -> bool:
        """Return whether a single child writes to *path*: nobody to mix with."""
        file = self._files.get(os.path.abspath(path))
        return file is not None and len(file.users) == 1

    def leave(self, user: str) -> None:
        """Close the files that were open for *user* only, once they are written."""
        for path, file in list(self._files.items()):
            file.users.discard(user)
            if not file.users:
                self._files.pop(path).destination.close()

    def restore(self) -> list[str]:
        """Make again the files that were removed; return their paths.

        One that was moved away is written on until `reopen`: its name is rotated.

        Raises:
            OSError: one cannot be made now; the others are.
        """
        found, problems = [], []
        for path, file in self._files.items():
            if not _is_removed(file.destination.descriptor):
                continue
            try:
                self._make_directory(path)
                file.destination.replace(os.open(path, _FLAGS, _MODE))
            except OSError as exc:
                problems.append(exc)
            else:
                found.append(path)
        if problems and not found:
            raise problems[0]
        return found

    def _make_directory(self, path: str) -> None:
        directory = os.path.dirname(path)
        if not os.path.isdir(directory):
            with suppress(OSError):  # opening the file tells what is wrong
                os.makedirs(directory, mode=0o750, exist_ok=True)
                logger.warning("the directory %s was removed; made again", directory)

    def reopen(self) -> None:
        """Open each path again: whoever rotates files has moved the old one away.

        Where that fails, the old one is written on, and the log says so.
        """
        for path, file in self._files.items():
            try:
                file.destination.replace(open_file(path, "reopen"))
            except SpecError as exc:
                logger.error("%s; the old file is kept", exc.problem)

    def close(self) -> None:
        """Close all, each once it is written."""
        for file in self._files.values():
            file.destination.close()
        self._files.clear()


def _is_removed(descriptor: int) -> bool:
    """Whether no name is left of an open file."""
    try:
        found = os.fstat(descriptor)
    except OSError:  # another one is about to take its place
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 0


def _log_problem(path: str, problem: OSError | None) -> None:
    if problem is None:
        logger.warning("%s can be written again", path)
    else:
        logger.error(
            "%s cannot be written: %s; it is tried again, and "
            "the last MiB kept meanwhile",
            path,
            problem.strerror,
        )
