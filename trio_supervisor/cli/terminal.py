"""Tell the SIGHUP of a terminal that closed from one that asks for a reload.

The kernel sends SIGHUP to the session's leader and to the foreground when a terminal
closes, and shells pass it on to their jobs. By then the process has no controlling
terminal any more: tty_signal_session_leader() takes it away first.
"""

from __future__ import annotations

import os
import time
from typing import Final

# A shell that exits sends SIGHUP a moment before the terminal is taken away [s].
_INTERVAL: Final = 0.05
_LOOKS: Final = 5
# How long after the terminal has closed a SIGHUP is still that of its end [s].
_LATE: Final = 5.0
_CHECK_INTERVAL: Final = 1.0
# Of proc_pid_stat(5), counted behind the command's name: tty_nr.
_TTY: Final = 4


class Terminal:
    """The controlling terminal that this process was started with, if any."""

    def __init__(self) -> None:
        self._is_open = has_terminal()
        self._closed_at = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether it was there when it was looked at last."""
        return self._is_open

    def has_closed(self) -> bool:
        """Look whether it has closed within the last seconds.

        Whoever has survived that, as what a shell has disowned, gets no more SIGHUP
        from it: a later one is meant.
        """
        if self._is_open and not has_terminal():
            self._is_open = False
            self._closed_at = time.monotonic()
        return time.monotonic() - self._closed_at <= _LATE

    async def wait_hangup(self) -> bool:
        """Return, after a SIGHUP, whether the terminal's end is what it tells of."""
        import trio  # loaded by then, and not before: `serve` begins without it

        for _ in range(_LOOKS):
            if self.has_closed():
                return True
            if not self._is_open:
                return False
            await trio.sleep(_INTERVAL)
        return False

    async def watch(self) -> None:
        """Notice when it closes, so that what comes much later is told apart."""
        import trio

        while self._is_open:
            await trio.sleep(_CHECK_INTERVAL)
            self.has_closed()


def has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        with open("/proc/self/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[_TTY] != b"0"
    except (OSError, IndexError):
        pass  # no Linux
    try:
        descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return False
    os.close(descriptor)
    return True
