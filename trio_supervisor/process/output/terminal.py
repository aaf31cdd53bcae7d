"""Create the terminal that a child writes to."""

from __future__ import annotations

import errno
import os
import sys
import termios
from typing import Final

from trio_supervisor.process.output.pipes import Pipe

_LINES: Final = 24
_COLUMNS: Final = 80
# Indices of what tcgetattr(3) returns.
_OUTPUT: Final = 1
_LOCAL: Final = 3


def open_terminal() -> Pipe:
    """Create a pseudo-terminal that is not inherited by default.

    It leaves line ends as they are written, and echoes no input.

    Raises:
        OSError: there are too many, or this system has none that can be read as a pipe.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOTSUP, "tty needs Linux")
    pipe = Pipe(*os.openpty())
    try:
        attributes = termios.tcgetattr(pipe.writing)
        attributes[_OUTPUT] &= ~termios.OPOST
        attributes[_LOCAL] &= ~termios.ECHO
        termios.tcsetattr(pipe.writing, termios.TCSANOW, attributes)
        termios.tcsetwinsize(pipe.writing, (_LINES, _COLUMNS))
        os.set_blocking(pipe.reading, False)
    except BaseException:
        os.close(pipe.reading)
        os.close(pipe.writing)
        raise
    return pipe
