"""Test which verb each key runs."""

from __future__ import annotations

import pytest

from trio_supervisor.cli.parsing import parse_words
from trio_supervisor.cli.top.commands import KEYS, TopCommand, command_of
from trio_supervisor.cli.top.rows import TopRow

BY_KEY = {key.key: key for key in KEYS}
WORKER = TopRow("k", "web.0", "web", False, "ready", process_id=7, worker_count=3)
SERVICE = WORKER._replace(name="web", is_service=True, process_id=None)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("r", "restart web.0"),
        ("x", "stop web.0"),
        ("S", "start web.0"),
        ("plus", "scale web=4"),
        ("minus", "scale web=2"),
        ("t", "thread-dump web.0"),
        ("T", "scheduler-dump web.0"),
        ("d", "doctor web.0"),
        ("l", "logs web.0 --tail 500"),
        ("enter", "status web.0"),
    ],
)
def test_key_runs_a_verb(key: str, words: str) -> None:
    command = command_of(BY_KEY[key], WORKER)
    assert isinstance(command, TopCommand)
    assert command.title == words
    parse_words(command.words)  # exits if there is no such verb or option


def test_keys_ask_before_something_is_lost() -> None:
    commands = {name: command_of(key, SERVICE) for name, key in BY_KEY.items()}
    assert {
        name: command.question
        for name, command in commands.items()
        if isinstance(command, TopCommand) and command.question
    } == {
        "r": "Restart all workers of web?",
        "x": "Stop all workers of web, and its dependents?",
        "minus": "Scale web from 3 down to 2?",
    }


def test_service_without_workers_cannot_be_scaled_down() -> None:
    row = SERVICE._replace(worker_count=0)
    assert command_of(BY_KEY["minus"], row) == "web has no workers"


def test_worker_that_registered_is_shown_by_pid_and_not_controlled() -> None:
    row = WORKER._replace(is_managed=False)
    shown = command_of(BY_KEY["t"], row)
    assert isinstance(shown, TopCommand)
    assert shown.words == ("thread-dump", "7")
    assert command_of(BY_KEY["r"], row) == ("web.0 was not started by this controller")


@pytest.mark.parametrize("name", ["--socket=/tmp/x", "a\0b"])
def test_name_that_is_no_argument_is_refused(name: str) -> None:
    row = WORKER._replace(name=name)
    assert str(command_of(BY_KEY["t"], row)).endswith("on a command line")
