"""Test that a terminal is read as a pipe is."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Iterator

import pytest
import trio

from trio_supervisor.process.output.hub import open_output_hub
from trio_supervisor.process.output.pipes import Pipe
from trio_supervisor.process.output.terminal import (
    LineEnds,
    open_terminal,
    resize,
    write_keys,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    opened = open_terminal()
    yield opened
    os.close(opened.writing)
    os.close(opened.reading)


def test_terminal_has_the_usual_modes_and_size(pipe: Pipe) -> None:
    assert os.isatty(pipe.writing)
    assert termios.tcgetwinsize(pipe.writing) == (24, 80)
    assert not os.get_inheritable(pipe.writing)
    os.write(pipe.writing, b"a\n")
    assert os.read(pipe.reading, 9) == b"a\r\n"
    resize(pipe.reading, (30, 100))
    assert termios.tcgetwinsize(pipe.writing) == (30, 100)


async def test_keys_are_echoed_and_read_by_the_program(pipe: Pipe) -> None:
    """Ctrl-S is a key as any other: the output would stop for good."""
    await write_keys(pipe.reading, b"a\x13b\r")
    assert os.read(pipe.writing, 9) == b"a\x13b\n"
    assert os.read(pipe.reading, 9) == b"a^Sb\r\n"


async def test_keys_wait_for_a_program_that_does_not_read(pipe: Pipe) -> None:
    keys = b"x" * 1000 + b"\n"
    with trio.move_on_after(0.01) as scope:
        await write_keys(pipe.reading, 100 * keys)
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("reads", "lines"),
    [
        ([b"a\r\nb\r\n"], b"a\nb\n"),
        ([b"a\r", b"\nb"], b"a\nb"),
        ([b"1%\r", b"2%\r"], b"1%\r2%\r"),
        ([b"a\r\r\n"], b"a\r\n"),
        ([b"\r", b"\r", b"\n"], b"\r\n"),
    ],
)
def test_line_ends_are_those_of_the_program(reads: list[bytes], lines: bytes) -> None:
    line_ends = LineEnds()
    assert b"".join(map(line_ends.add, reads)) + line_ends.end() == lines
    assert line_ends.end() == b""


async def test_output_to_a_terminal_is_recorded_to_its_end() -> None:
    """Its end is an error (EIO), unlike that of a pipe."""
    async with open_output_hub() as hub:
        with hub.open("web.0", has_terminal=True) as output:
            stdout, stderr = output.descriptors
            assert stdout == stderr
            process_end = os.dup(stdout)
            output.started(7)
            os.write(process_end, b"one\ntwo\r")
            os.close(process_end)
            with trio.fail_after(5):
                while output.readings:  # noqa: ASYNC110 (of another task)
                    await trio.sleep(0.001)
            lines = output.last_lines(5)
    assert [line.text for line in lines] == ["one", "two"]
