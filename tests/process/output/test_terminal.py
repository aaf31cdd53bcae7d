"""Test that a terminal is read as a pipe is."""

from __future__ import annotations

import os
import sys
import termios

import pytest
import trio

from trio_supervisor.process.output.hub import open_output_hub
from trio_supervisor.process.output.terminal import open_terminal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


def test_terminal_leaves_lines_as_they_are() -> None:
    pipe = open_terminal()
    assert os.isatty(pipe.writing)
    assert termios.tcgetwinsize(pipe.writing) == (24, 80)
    assert not os.get_inheritable(pipe.writing)
    os.write(pipe.writing, b"a\n")
    assert os.read(pipe.reading, 9) == b"a\n"
    os.close(pipe.writing)
    os.close(pipe.reading)


async def test_output_to_a_terminal_is_recorded_to_its_end() -> None:
    """Its end is an error (EIO), unlike that of a pipe."""
    async with open_output_hub() as hub:
        with hub.open("web.0", has_terminal=True) as output:
            stdout, stderr = output.descriptors
            assert stdout == stderr
            process_end = os.dup(stdout)
            output.started(7)
            os.write(process_end, b"one\ntwo")
            os.close(process_end)
            with trio.fail_after(5):
                while output.readings:  # noqa: ASYNC110 (of another task)
                    await trio.sleep(0.001)
            lines = output.last_lines(5)
    assert [line.text for line in lines] == ["one", "two"]
