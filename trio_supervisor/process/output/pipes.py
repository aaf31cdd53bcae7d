"""The pipes through which children print."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import Final, NamedTuple

from attrs import define

# Of pipe(7): the most that needs no privilege. All pipes of a user together may have
# 64 MiB; past that, new ones get two pages each, those of other programs too.
_WIDE: Final = 1024 * 1024
_WIDE_PIPES: Final = 16
# macOS has neither.
_SET_SIZE: Final[int | None] = getattr(fcntl, "F_SETPIPE_SZ", None)
_GET_SIZE: Final[int | None] = getattr(fcntl, "F_GETPIPE_SZ", None)
_DEFAULT: Final = 64 * 1024


class Pipe(NamedTuple):
    """Both ends: the child's, which blocks, and ours, which does not."""

    reading: int
    writing: int


def open_pipe() -> Pipe:
    """Make a pipe. No other program inherits it, unless told to.

    Raises:
        OSError: too many files are open.
    """
    pipe = Pipe(*os.pipe())
    os.set_blocking(pipe.reading, False)
    return pipe


def capacity_of(descriptor: int) -> int:
    """Return how much may be in a pipe [bytes]."""
    if _GET_SIZE is None:
        return _DEFAULT
    return fcntl.fcntl(descriptor, _GET_SIZE)


@define(eq=False)
class PipeEnlarger:
    """Makes pipes of busy children larger: a few, for the system counts them."""

    _left: int = _WIDE_PIPES

    def enlarge(self, descriptor: int) -> bool:
        """Make a pipe larger, if that is allowed; say whether it was."""
        if _SET_SIZE is None or not self._left:
            return False
        with suppress(OSError):  # the user has too many
            fcntl.fcntl(descriptor, _SET_SIZE, _WIDE)
            self._left -= 1
            return True
        return False

    def give_back(self) -> None:
        """Say that one that was made larger is closed."""
        self._left += 1
