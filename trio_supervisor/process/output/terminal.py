"""Create the terminal that a child writes to, and write what is typed there."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
import termios
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.process.output.pipes import Pipe

SIZE: Final = (24, 80)
"""Lines and columns of a terminal to which no one is attached."""
# Indices of what tcgetattr(3) returns.
_INPUT: Final = 0


def open_terminal(size: tuple[int, int] = SIZE) -> Pipe:
    """Create a pseudo-terminal that is not inherited by default.

    It has the usual modes, but Ctrl-S does not stop what is written to it: the child
    would block until Ctrl-Q is typed.

    Raises:
        OSError: there are too many, or this system has none that can be read as a pipe.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOTSUP, "tty needs Linux")
    pipe = Pipe(*os.openpty())
    try:
        attributes = termios.tcgetattr(pipe.writing)
        attributes[_INPUT] &= ~termios.IXON
        termios.tcsetattr(pipe.writing, termios.TCSANOW, attributes)
        resize(pipe.writing, size)
        os.set_blocking(pipe.reading, False)
    except BaseException:
        os.close(pipe.reading)
        os.close(pipe.writing)
        raise
    return pipe


def resize(descriptor: int, size: tuple[int, int]) -> None:
    """Set lines and columns; programs in the foreground get SIGWINCH if that is new.

    Args:
        descriptor: Either end of the terminal.
    """
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))


async def write_keys(descriptor: int, data: bytes) -> None:
    """Write what was typed; wait for as long as the program does not read.

    Args:
        descriptor: Our end of the terminal.

    Raises:
        OSError: the terminal was closed.
    """
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(descriptor)
    await trio.lowlevel.checkpoint()


@define(eq=False)
class LineEnds:
    r"""Undoes what a terminal does to the ends of lines: ``\r\n`` is ``\n`` again."""

    _is_held: bool = field(default=False, init=False)
    r"""Whether the last byte was ``\r``, which may be half of an end."""

    def add(self, data: bytes) -> bytes:
        r"""Return *data*, read next, with such ends; a last ``\r`` comes later."""
        if self._is_held:
            data = b"\r" + data
        self._is_held = data.endswith(b"\r")
        return data[: len(data) - self._is_held].replace(b"\r\n", b"\n")

    def end(self) -> bytes:
        """Return what was held back."""
        held, self._is_held = b"\r" * self._is_held, False
        return held
