"""Create the pipes for output of children."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import Final, NamedTuple

from attrs import define

# The largest size without privileges: pipe(7). All pipes of a user may have 64 MiB
# together; beyond that, new pipes of any program get two pages each.
_WIDE: Final = 1024 * 1024
_WIDE_PIPES: Final = 16
# Missing on macOS.
_SET_SIZE: Final[int | None] = getattr(fcntl, "F_SETPIPE_SZ", None)
_GET_SIZE: Final[int | None] = getattr(fcntl, "F_GETPIPE_SZ", None)
_DEFAULT: Final = 64 * 1024


class Pipe(NamedTuple):
    """Both ends: the child's is blocking, ours is not."""

    reading: int
    writing: int


def open_pipe() -> Pipe:
    """Create a pipe that is not inherited by default.

    Raises:
        OSError: too many files are open.
    """
    pipe = Pipe(*os.pipe())
    os.set_blocking(pipe.reading, False)
    return pipe


def capacity_of(descriptor: int) -> int:
    """Return the capacity of a pipe [bytes]."""
    if _GET_SIZE is not None:
        with suppress(OSError):  # it is a terminal
            return fcntl.fcntl(descriptor, _GET_SIZE)
    return _DEFAULT


@define(eq=False)
class PipeEnlarger:
    """Enlarges the pipes of busy children: only a few, since the total is limited."""

    _left: int = _WIDE_PIPES

    def enlarge(self, descriptor: int) -> bool:
        """Enlarge a pipe if possible; return whether it was."""
        if _SET_SIZE is None or not self._left:
            return False
        with suppress(OSError):  # the user has too many
            fcntl.fcntl(descriptor, _SET_SIZE, _WIDE)
            self._left -= 1
            return True
        return False

    def give_back(self) -> None:
        """Count an enlarged pipe as closed."""
        self._left += 1
