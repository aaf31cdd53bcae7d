"""Rotate an output file: rename it to FILE.1, FILE.2 and so on, and begin a new one.

Runs in the thread that writes the file, so that no line is lost or written twice. The
compression has a thread of its own, because it takes longer than a worker may wait.
"""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from attrs import define, field, frozen

logger = logging.getLogger(__name__)

# How long to write on after a rotation has failed [s].
_RETRY: Final = 60.0
# Output without a newline is cut at this multiple of the maximum size.
_MOST_TIMES: Final = 2
_LEVEL: Final = 6
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE_FLAGS: Final = (
    os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
)


@frozen
class RotationPlan:
    """When a file is rotated, and what is kept."""

    max_size: int | None = None
    """[bytes]"""
    max_age: float | None = None
    """[s]; from midnight on, local time."""
    keep: int = 10
    """Number of rotated files."""
    is_compressed: bool = True

    def is_due(
        self, size: int, written_at: float, now: float, *, is_whole: bool
    ) -> bool:
        """Return whether a file is to be rotated before more is written.

        Args:
            size: Its size [bytes].
            written_at: When it was written last [s since the epoch].
            is_whole: Whether it ends with a newline.
        """
        if not size:
            return False
        if self.max_size is not None and size >= self.max_size:
            return is_whole or size >= _MOST_TIMES * self.max_size
        if self.max_age is None or not is_whole:
            return False
        return self._period(written_at) != self._period(now)

    def _period(self, moment: float) -> int:
        assert self.max_age is not None
        offset = time.localtime(moment).tm_gmtoff
        return int((moment + offset) // self.max_age)


NEVER: Final = RotationPlan()


@define(eq=False)
class Rotation:
    """Rotates one file."""

    path: str
    plan: RotationPlan
    _reopen: Callable[[], int]
    """Opens the path again and returns the descriptor; OSError: it cannot."""
    _written_at: float | None = field(default=None, init=False)
    _retry_at: float = field(default=0.0, init=False)
    _compressing: threading.Thread | None = field(default=None, init=False)

    def before_write(self, descriptor: int) -> int | None:
        """Rotate the file if that is due; return the descriptor of the new one.

        Failures are logged: the file is written on, and tried again after a minute.
        """
        plan, now = self.plan, time.time()
        if plan == NEVER:
            return None
        try:
            found = os.fstat(descriptor)
        except OSError:
            return None
        before = found.st_mtime if self._written_at is None else self._written_at
        self._written_at = now
        is_file = stat.S_ISREG(found.st_mode)
        if not is_file or now < self._retry_at or self._is_compressing():
            return None

        def is_due(*, is_whole: bool) -> bool:
            return plan.is_due(found.st_size, before, now, is_whole=is_whole)

        # Checked only where it matters: it takes three system calls.
        if not is_due(is_whole=True):
            return None
        if not is_due(is_whole=_ends_with_newline(self.path, found)):
            return None
        if not _is_still(self.path, found):
            return None  # another program is rotating it
        try:
            return self._rotate()
        except OSError as exc:
            self._retry_at = now + _RETRY
            logger.error("cannot rotate %s: %s; writing on", self.path, exc)
            return None

    def _rotate(self) -> int:
        keep = self.plan.keep
        # Those after a gap need not move: there is room for those before it.
        free = next(n for n in range(1, keep + 2) if n > keep or not self._has(n))
        for number in range(free - 1, 0, -1):
            for suffix in ("", ".gz"):
                _move(self._old(number, suffix), self._old(number + 1, suffix))
        os.rename(self.path, self._old(1))
        self._remove_beyond(keep)
        try:
            descriptor = self._reopen()
        except BaseException:
            if keep:
                os.rename(self._old(1), self.path)
            raise
        if keep and self.plan.is_compressed:
            self._compress(self._old(1))
        return descriptor

    def _remove_beyond(self, keep: int) -> None:
        """Remove old files with a number greater than *keep*."""
        number = keep + 1
        while True:
            paths = [self._old(number, suffix) for suffix in ("", ".gz")]
            there = [path for path in paths if os.path.lexists(path)]
            if not there:
                return
            for path in there:
                os.unlink(path)
            number += 1

    def _has(self, number: int) -> bool:
        """Return whether there is an old file *number*, compressed or not."""
        return any(os.path.lexists(self._old(number, s)) for s in ("", ".gz"))

    def _old(self, number: int, suffix: str = "") -> str:
        return f"{self.path}.{number}{suffix}"

    # Compression.

    def _is_compressing(self) -> bool:
        """Whether the last file is still being compressed: it must keep its name."""
        return self._compressing is not None and self._compressing.is_alive()

    def _compress(self, path: str) -> None:
        thread = threading.Thread(
            target=_compress, args=[path], name="compress a log file", daemon=True
        )
        self._compressing = thread
        try:
            thread.start()
        except RuntimeError:  # too many threads: it stays as it is
            self._compressing = None


def _compress(path: str) -> None:
    """Replace *path* by a compressed file; if that fails, leave it as it is."""
    temporary = f"{path}.gz.new"
    try:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # of a controller that was killed
        with open(os.open(path, _READ_FLAGS), "rb") as source:
            mode = stat.S_IMODE(os.fstat(source.fileno()).st_mode)
            with (
                open(os.open(temporary, _WRITE_FLAGS, mode), "wb") as raw,
                gzip.GzipFile("", "wb", _LEVEL, raw) as target,
            ):
                shutil.copyfileobj(source, target)
        os.rename(temporary, f"{path}.gz")
        os.unlink(path)
    except OSError as exc:
        logger.error("cannot compress %s: %s; it is kept as it is", path, exc)
        with suppress(OSError):
            os.unlink(temporary)


def _move(old: str, new: str) -> None:
    with suppress(FileNotFoundError):
        os.rename(old, new)


def _is_still(path: str, found: os.stat_result) -> bool:
    """Return whether *path* is the file *found*."""
    try:
        return os.path.samestat(os.lstat(path), found)
    except OSError:
        return False


def _ends_with_newline(path: str, found: os.stat_result) -> bool:
    if not found.st_size:
        return True
    try:
        descriptor = os.open(path, _READ_FLAGS | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        return os.pread(descriptor, 1, found.st_size - 1) == b"\n"
    finally:
        os.close(descriptor)
