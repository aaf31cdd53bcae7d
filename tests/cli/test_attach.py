"""Test what the verb shows of a worker's output; test_attach of e2e has the rest."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from trio_supervisor.cli.attach import AttachedSession, unseen
from trio_supervisor.cli.local_terminal import LocalTerminal
from trio_supervisor.errors import RemoteProtocolError


class World:
    """A session whose output can be read."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        terminal = LocalTerminal(self.reading, self.writing)
        self.session = AttachedSession("web.0", "/nowhere", terminal)

    def take(self, *entries: dict[str, Any], missed: int = 0) -> str:
        """Return what is shown for an answer."""
        self.session._take({"entries": list(entries), "missed": missed})
        return os.read(self.reading, 9999).decode()


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    yield found
    os.close(found.reading)
    os.close(found.writing)


def state(process_id: int = 7, **fields: object) -> dict[str, object]:
    given = {"is_running": True, "process_id": process_id, "has_terminal": False}
    return {**given, **fields}


def data(text: bytes) -> dict[str, object]:
    return {"data": b64encode(text).decode()}


def test_changes_of_the_process_are_said(world: World) -> None:
    assert world.take(state(has_terminal=True)) == (
        "[output of web.0 only: this is not a terminal]\n"
    )
    gone = world.take(state(is_running=False))
    assert gone == "[web.0 has exited; waiting for its next process]\n"
    assert world.take(state(8)) == "[web.0 has started (pid 8)]\n"
    assert world.take(state(8)) == "[connected again]\n"


def test_worker_that_is_not_running_is_waited_for(world: World) -> None:
    assert world.take(state(is_running=False)) == (
        "[web.0 has no terminal: output only; input needs tty=True]\n"
        "[web.0 is not running; waiting for its next process]\n"
    )


def test_output_of_a_pipe_is_escaped_and_that_of_a_terminal_is_not(
    world: World,
) -> None:
    world.take(state())
    assert world.take(data(b"\x1b[7m \xc3"), data(b"\xa4\r\n")) == "\\x1b[7m ä\n"
    world.take(state(8, has_terminal=True))
    assert world.take(data(b"\x1b[7m\r\n")) == "\x1b[7m\r\n"


def test_dropped_output_is_said(world: World) -> None:
    world.take(state())
    assert world.take(data(b"x"), missed=3) == (
        "[output was dropped: this terminal is too slow]\nx"
    )


@pytest.mark.parametrize(
    "entry", [{}, {"data": 1}, {"data": "%%%"}, {"is_running": True}, 5]
)
def test_malformed_answer_is_an_error(world: World, entry: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="malformed answer"):
        world.session._take({"entries": [entry], "missed": 0})


@pytest.mark.parametrize(
    ("data", "tail", "rest"),
    [
        (b"one\ntwo\nthree", b"two\n", b"three"),
        (b"one\ntwo\n", b"one\ntwo\n", b""),
        (b"one\nready> ", b"one\nready> ", b"ready> "),
        (b"x" * 100, b"x" * 90, b""),
        (b"new", b"two", b"new"),
        (b"new", b"", b"new"),
    ],
)
def test_what_was_shown_before_a_reconnection_is_left_out(
    data: bytes, tail: bytes, rest: bytes
) -> None:
    assert unseen(data, tail) == rest
