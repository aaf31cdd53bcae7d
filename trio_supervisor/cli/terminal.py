"""Distinguish the SIGHUP of a closed terminal from one that requests a reload.

When a terminal closes, the kernel sends SIGHUP to the session leader and to the
foreground process group, and shells forward it to their jobs. By then the process has
lost its controlling terminal: tty_signal_session_leader() takes it away first.
"""

from __future__ import annotations

import os
import time
from typing import Final

# A shell that exits sends SIGHUP shortly before the terminal is taken away: check a few
# times [s].
_RETRY_INTERVAL: Final = 0.05
_ATTEMPTS: Final = 5
# How long after the terminal has closed a SIGHUP is taken as a result of that [s].
_CLOSED_RECENTLY: Final = 5.0
_CHECK_INTERVAL: Final = 1.0
# Index of tty_nr in proc_pid_stat(5), counted after the name of the command.
_TTY_FIELD: Final = 4


class Terminal:
    """The controlling terminal that this process was started with, if any."""

    def __init__(self) -> None:
        self._is_open = has_terminal()
        self._closed_at = float("-inf")

    def has_closed(self) -> bool:
        """Check whether the terminal has closed within the last seconds.

        A process that survived that (disowned by its shell, for instance) gets no
        further SIGHUP from the terminal: a later one requests a reload.
        """
        if self._is_open and not has_terminal():
            self._is_open = False
            self._closed_at = time.monotonic()
        return time.monotonic() - self._closed_at <= _CLOSED_RECENTLY

    async def wait_hangup(self) -> bool:
        """Return whether the SIGHUP just received was sent by a closing terminal."""
        import trio  # already loaded by now; `serve` begins without it

        for _ in range(_ATTEMPTS):
            if self.has_closed():
                return True
            if not self._is_open:
                return False
            await trio.sleep(_RETRY_INTERVAL)
        return False

    async def watch(self) -> None:
        """Watch for the terminal to close, so that a much later SIGHUP reloads."""
        import trio

        while self._is_open:
            await trio.sleep(_CHECK_INTERVAL)
            self.has_closed()


def has_terminal() -> bool:
    """Return whether this process has a controlling terminal."""
    try:
        with open("/proc/self/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[_TTY_FIELD] != b"0"
    except (OSError, IndexError):
        pass  # not Linux
    try:
        descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return False
    os.close(descriptor)
    return True
