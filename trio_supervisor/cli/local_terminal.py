"""The terminal that a verb runs in: its size, its keys, and its modes."""

from __future__ import annotations

import errno
import os
import select
import sys
import termios
import tty
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import trio
from attrs import define, field

_STEP: Final = 4096


@define(eq=False)
class LocalTerminal:
    """Standard input and output; a context manager that restores the modes.

    Without a terminal on both there are no keys.
    """

    _input: int = field(factory=lambda: sys.stdin.fileno())
    _output: int = field(factory=lambda: sys.stdout.fileno())
    _modes: list[Any] | None = field(default=None, init=False)
    """Those to restore; None: they are unchanged."""

    @property
    def is_interactive(self) -> bool:
        """Whether there is a terminal."""
        return os.isatty(self._input) and os.isatty(self._output)

    @property
    def is_raw(self) -> bool:
        """Whether keys are passed on as they are, and lines end with ``\\r\\n``."""
        return self._modes is not None

    def size(self) -> tuple[int, int] | None:
        """Return its lines and columns; None: they are unknown."""
        try:
            found = os.get_terminal_size(self._output)
        except OSError:
            return None
        if not (found.lines and found.columns):
            return None
        return min(found.lines, 1000), min(found.columns, 1000)

    def make_raw(self) -> None:
        """Have keys passed on as they are: Ctrl-C, too."""
        if self._modes is None and self.is_interactive:
            self._modes = termios.tcgetattr(self._input)
            tty.setraw(self._input, termios.TCSADRAIN)  # keys typed before are kept

    async def keys(self) -> bytes:
        """Wait for keys; empty: the terminal was closed."""
        await trio.lowlevel.wait_readable(self._input)
        try:
            return os.read(self._input, _STEP)
        except OSError:
            return b""

    def write(self, data: bytes) -> None:
        """Write *data*; wait for a slow terminal. One that was closed takes nothing."""
        while data:
            try:
                data = data[os.write(self._output, data) :]
            except BlockingIOError:  # another program has made it non-blocking
                select.select([], [self._output], [])
            except OSError as exc:
                if exc.errno != errno.EIO:
                    raise
                return

    def say(self, text: str) -> None:
        """Write a line of our own, in brackets, on a line of its own."""
        end = "\n" if self._modes is None else "\r\n"
        begin = "" if self._modes is None else "\r\n"
        self.write(f"{begin}[{text}]{end}".encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._modes is not None:
            with suppress(termios.error):  # it was closed
                termios.tcsetattr(self._input, termios.TCSADRAIN, self._modes)
            self._modes = None
