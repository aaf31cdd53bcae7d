"""Test ``top`` on a real terminal, at a real supervisor."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.kits.serving import (
    COMMAND,
    PATIENCE,
    Serving,
    environment_of_children,
    open_serving,
)

# Select Graphic Rendition of ECMA-48, with a colour that is not the default.
COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7])(?:;\d+)*m")
SERVICE = """
from trio_supervisor import Application, Command
application = Application([Command("nap", ["sleep", "1000"], count=2)])
"""


class TopTerminal:
    """A terminal in which ``top`` runs."""

    def __init__(self, ours: int, process: subprocess.Popen[bytes]) -> None:
        self._ours = ours
        self.process = process
        self.seen = b""

    def press(self, keys: str) -> None:
        self.seen = b""
        os.write(self._ours, keys.encode())

    def wait_text(self, text: str) -> None:
        end = time.monotonic() + PATIENCE
        while text.encode() not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self._ours], [], [], 0.1)[0]:
                self.seen += os.read(self._ours, 65536)

    def wait_exit(self) -> int:
        while (code := self.process.poll()) is None:
            if select.select([self._ours], [], [], 0.1)[0]:
                self.seen += os.read(self._ours, 65536)
        return code


@contextmanager
def top(serving: Serving) -> Iterator[TopTerminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, "top", "--interval", "0.2"],
        cwd=serving.directory,
        env={**environment_of_children(), "TERM": "xterm", "NO_COLOR": "1"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    try:
        yield TopTerminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(theirs)
        os.close(ours)


def test_top_shows_controls_and_quits() -> None:
    with open_serving(SERVICE) as serving:
        with top(serving) as terminal:
            terminal.wait_text("nap.1")
            assert COLOUR.search(terminal.seen) is None

            terminal.press("+")
            terminal.wait_text("nap.2")
            terminal.press("x")
            terminal.wait_text("Stop all workers of nap")
            terminal.press("y")
            serving.wait_worker("nap.0", state="stopped")
            terminal.press("\r")
            terminal.wait_text("status nap")
            terminal.press("q")
            terminal.wait_text("sort: name")

            terminal.press("q")
            assert terminal.wait_exit() == 0
        with top(serving) as terminal:
            terminal.wait_text("nap.1")
            serving.kill("supervisor")
            terminal.wait_text("incarnation 2")

            terminal.process.send_signal(signal.SIGTERM)
            assert terminal.wait_exit() == 0
            assert b"\x1b[?1049l" in terminal.seen  # the screen was restored
