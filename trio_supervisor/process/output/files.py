"""Write output of children to files, which another program may rotate."""

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
from trio_supervisor.process.output.rotation import NEVER, Rotation, RotationPlan

logger = logging.getLogger(__name__)

_MODE: Final = 0o640
# A worker may be slowed down to the speed of the disk, as if it wrote itself. A disk
# that hangs for longer, such as a network file system, must not block it [s].
_SEND_TIMEOUT: Final = 1.0
# Each worker may have a file, all of them on the same full disk.
_QUEUE_SIZE: Final = 1024 * 1024
_FLAGS: Final = (
    os.O_WRONLY
    | os.O_APPEND
    | os.O_CREAT
    | os.O_CLOEXEC
    | os.O_NOCTTY
    | os.O_NOFOLLOW
    | os.O_NONBLOCK  # opening a FIFO without a reader fails instead of blocking
)


def open_file(path: str, field_name: str) -> int:
    """Open *path* for appending; create it with mode 0640 if it does not exist.

    Its directory may be a symbolic link owned by this user or root. The file itself
    must not be one: other users who can write to the directory could redirect it.

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
            return f"directory {os.path.dirname(path)} does not exist; create it"
        case errno.ELOOP:
            return "it is a symbolic link; name the file itself"
        case errno.ENXIO:
            return "it is a FIFO without a reader, or a socket"
    return exc.strerror or str(exc)


@define(eq=False)
class _File:
    destination: Destination
    rotation: Rotation
    users: set[str] = field(factory=set)


@define(eq=False)
class OutputFiles:
    """The open output files. Children that share a file never mix within a line."""

    _files: dict[str, _File] = field(factory=dict, init=False)
    _known: set[str] = field(factory=set, init=False)
    """Files opened before: their directories have existed."""

    @property
    def destinations(self) -> list[Destination]:
        """The destinations of all files."""
        return [file.destination for file in self._files.values()]

    def open(
        self, path: str, user: str, field_name: str, plan: RotationPlan = NEVER
    ) -> Destination:
        """Return the destination for *path*, which is kept open for *user*.

        Args:
            plan: When the file is rotated, from now on.

        Raises:
            SpecError: see `open_file`.
        """
        path = os.path.abspath(path)
        if (file := self._files.get(path)) is None:
            if path in self._known:
                self._make_directory(path)
            descriptor = open_file(path, field_name)
            self._known.add(path)
            rotation = Rotation(path, plan, partial(_open_again, path))
            destination = Destination(
                descriptor,
                notice_of("raw"),
                send_timeout=_SEND_TIMEOUT,
                limit=_QUEUE_SIZE,
                is_owner=True,
                on_problem=partial(_log_problem, path),
                before_write=rotation.before_write,
            )
            file = self._files[path] = _File(destination, rotation)
        file.rotation.plan = plan
        file.users.add(user)
        return file.destination

    def has_one_user(self, path: str) -> bool:
        """Return whether only one child writes to *path*."""
        file = self._files.get(os.path.abspath(path))
        return file is not None and len(file.users) == 1

    def release(self, user: str) -> None:
        """Close the files that are open for *user* only, once they are written."""
        for path, file in list(self._files.items()):
            file.users.discard(user)
            if not file.users:
                self._files.pop(path).destination.close()

    def restore(self) -> list[str]:
        """Recreate removed files; return their paths.

        A renamed file is written to until `reopen`, since it is being rotated.

        Raises:
            OSError: none of the removed files can be created.
        """
        found, problems = [], []
        for path, file in self._files.items():
            if not is_removed(file.destination.descriptor):
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
            with suppress(OSError):  # opening the file reports the error
                os.makedirs(directory, mode=0o750, exist_ok=True)
                logger.warning("directory %s was removed; recreated", directory)

    def reopen(self) -> None:
        """Open each path again, after the files were rotated.

        If that fails, the old file stays in use, which is logged.
        """
        for path, file in self._files.items():
            try:
                file.destination.replace(open_file(path, "reopen"))
            except SpecError as exc:
                logger.error("%s; still writing to the old file", exc.problem)

    def close(self) -> None:
        """Close all files, each once its queue is written."""
        for file in self._files.values():
            file.destination.close()
        self._files.clear()


def _open_again(path: str) -> int:
    """Open *path*, from a thread.

    Raises:
        OSError: it cannot be written.
    """
    try:
        return open_file(path, "log_file")
    except SpecError as exc:
        raise OSError(exc.problem) from exc


def is_removed(descriptor: int) -> bool:
    """Return whether an open file has no name any more."""
    try:
        found = os.fstat(descriptor)
    except OSError:  # it is being replaced
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 0


def _log_problem(path: str, problem: OSError | None) -> None:
    if problem is None:
        logger.warning("writing to %s again", path)
    else:
        logger.error(
            "cannot write to %s: %s; retrying every second, keeping the last 1 MiB",
            path,
            problem.strerror,
        )
