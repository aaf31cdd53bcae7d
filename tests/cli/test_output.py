"""Test what tables and progress bars look like on terminals of several kinds."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from trio_supervisor.cli.output import Progress, clear_terminal, fit, print_table

HEADER = ("NAME", "PID", "STATE", "MESSAGE")
ROWS = [
    ("web.0", "4711", "ready", "serving requests"),
    ("a" * 70, "4712", "backoff", "exit code 3, 7 times in a row; last line: oh no"),
]


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> Iterator[int]:
    """Make standard output and error a terminal; yield the side that reads it."""
    ours, theirs = os.openpty()
    size = struct.pack("HHHH", 24, columns, 0, 0)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    with open(theirs, "w", encoding="utf-8") as stream:
        for name in ("stdout", "stderr", "__stdout__"):
            monkeypatch.setattr(sys, name, stream)
        yield ours
        monkeypatch.undo()
    os.close(ours)


def shown(
    monkeypatch: pytest.MonkeyPatch, do: Callable[[], None], columns: int = 80
) -> str:
    """What *do* prints to a terminal, up to its last line, "the end".

    The kernel hands over what was written to a terminal in parts.
    """
    with terminal(monkeypatch, columns) as ours:
        do()
        sys.stdout.flush()
        text = b""
        while not text.endswith(b"the end\r\n"):
            text += os.read(ours, 65_536)
        return text.decode()


def print_rows() -> None:
    print_table(HEADER, ROWS)
    print("the end")


def show_progress() -> None:
    with Progress("sampling") as progress:
        progress.show(0.5)
    print("the end")


@pytest.fixture(autouse=True)
def colourful(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_table_on_terminal_is_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[32mready\x1b[0m" in shown(monkeypatch, print_rows)


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_table_without_colours_has_no_escapes(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    text = shown(monkeypatch, print_rows)

    assert "\x1b" not in text
    assert len(text.splitlines()) == len(ROWS) + 2
    assert max(map(len, text.splitlines())) <= 80


def test_table_cuts_long_names_and_messages_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = shown(monkeypatch, print_rows, 60).splitlines()

    (row,) = [line for line in lines if "4712" in line]
    assert "backoff" in row
    assert "…" in row
    assert any("web.0" in line and "4711" in line for line in lines)


@pytest.mark.parametrize("columns", [1, 40, 80, 200])
def test_fit_cuts_no_more_than_needed(columns: int) -> None:
    rows = fit(HEADER, ROWS, columns)

    for row, original in zip(rows, ROWS, strict=True):
        assert (row[1], row[2]) == (original[1], original[2])
        assert len(row[0]) >= min(len(original[0]), 12)
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    if columns > 40:
        assert sum(widths) + 11 <= columns
    if columns == 200:
        assert rows == [list(row) for row in ROWS]


def test_progress_needs_escapes_not_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "sampling" in shown(monkeypatch, show_progress)
    monkeypatch.setenv("TERM", "dumb")
    assert shown(monkeypatch, show_progress) == "the end\r\n"


@pytest.mark.parametrize(("kind", "start"), [("xterm", "\x1b[H\x1b[J"), ("dumb", "")])
def test_terminal_is_cleared_if_it_can_be(
    monkeypatch: pytest.MonkeyPatch, kind: str, start: str
) -> None:
    def show() -> None:
        clear_terminal()
        print("the end")

    monkeypatch.setenv("TERM", kind)
    assert shown(monkeypatch, show) == f"{start}the end\r\n"
