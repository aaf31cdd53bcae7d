"""Test the terminal that a verb runs in, with a real one."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator

import pytest
import trio

from trio_supervisor.cli.local_terminal import LocalTerminal


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """Return the user's end of a terminal, and the program's."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (30, 100))
    yield master, slave
    os.close(master)
    os.close(slave)


async def test_raw_terminal_passes_keys_on_and_is_restored(
    ends: tuple[int, int],
) -> None:
    user, program = ends
    modes = termios.tcgetattr(program)
    with LocalTerminal(program, program) as terminal:
        assert terminal.is_interactive
        assert terminal.size() == (30, 100)
        terminal.say("begun")
        assert os.read(user, 99) == b"[begun]\r\n"  # by the terminal
        terminal.make_raw()
        terminal.make_raw()
        assert terminal.is_raw
        os.write(user, b"\x03\x1d")
        with trio.fail_after(5):
            assert await terminal.keys() == b"\x03\x1d"
        terminal.write(b"a\n")
        assert os.read(user, 99) == b"a\n"
        terminal.say("text")
        assert os.read(user, 99) == b"\r\n[text]\r\n"
    assert termios.tcgetattr(program) == modes


def test_pipe_is_no_terminal() -> None:
    reading, writing = os.pipe()
    with LocalTerminal(reading, writing) as terminal:
        assert not terminal.is_interactive
        assert terminal.size() is None
        terminal.make_raw()
        assert not terminal.is_raw
        terminal.say("text")
    assert os.read(reading, 99) == b"[text]\n"
    os.close(reading)
    os.close(writing)


def test_terminal_without_a_size(ends: tuple[int, int]) -> None:
    termios.tcsetwinsize(ends[1], (0, 0))
    assert LocalTerminal(*ends).size() is None
    termios.tcsetwinsize(ends[1], (5000, 5000))
    assert LocalTerminal(*ends).size() == (1000, 1000)


async def test_closed_terminal_has_no_keys_and_takes_nothing() -> None:
    master, slave = os.openpty()
    with LocalTerminal(slave, slave) as terminal:
        terminal.make_raw()
        os.close(master)
        terminal.say("text")
        with trio.fail_after(5):
            assert await terminal.keys() == b""
    os.close(slave)
