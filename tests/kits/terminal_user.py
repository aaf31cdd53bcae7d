"""A user who runs a verb in a terminal of their own, types, and reads the screen."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.kits.serving import COMMAND, PATIENCE, environment_of_children


class TerminalUser:
    """What happens in one terminal; made by `open_terminal_user`."""

    def __init__(
        self, master: int, slave: int, process: subprocess.Popen[bytes]
    ) -> None:
        self._master, self._slave = master, slave
        self.process = process
        self.screen = ""
        """All that was written, but for what `wait` has passed."""

    @property
    def is_open(self) -> bool:
        return self._master >= 0

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait(self, text: str) -> str:
        """Wait until *text* is on the screen; return what was written up to there."""
        end = time.monotonic() + PATIENCE
        while text not in self.screen:
            left = end - time.monotonic()
            assert left > 0, f"{text!r} not on the screen: {self.screen!r}"
            if select.select([self._master], [], [], left)[0]:
                with suppress(OSError):
                    read = os.read(self._master, 65536)
                    self.screen += read.decode("utf-8", "replace")
        before, _, self.screen = self.screen.partition(text)
        return before

    def resize(self, lines: int, columns: int) -> None:
        termios.tcsetwinsize(self._master, (lines, columns))

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        """Close the terminal, as by its window."""
        for descriptor in (self._master, self._slave):
            os.close(descriptor)
        self._master = self._slave = -1

    def wait_exit(self) -> int:
        """Wait until the verb has exited, and read what it writes until then."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < end
            if select.select([self._master], [], [], 0.01)[0]:
                self.screen += os.read(self._master, 65536).decode("utf-8", "replace")
        return self.process.returncode


@contextmanager
def open_terminal_user(
    *words: str, directory: Path, size: Sequence[int] = (30, 100)
) -> Iterator[TerminalUser]:
    """Run a verb in a new terminal, which is its controlling one."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (size[0], size[1]))
    process = subprocess.Popen(
        [*COMMAND, *words],
        cwd=directory,
        env={**environment_of_children(), "TERM": "xterm"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    user = TerminalUser(master, slave, process)
    try:
        yield user
    finally:
        process.kill()
        process.wait()
        if user.is_open:
            user.close()
