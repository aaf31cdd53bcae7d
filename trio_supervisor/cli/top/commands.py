"""Say which verb each key runs for the selected row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from trio_supervisor.cli.top.rows import TopRow
from trio_supervisor.process.output.escaping import escape_line


class TopCommand(NamedTuple):
    """A command line of a verb."""

    words: tuple[str, ...]
    """The verb and its arguments."""
    is_shown: bool
    """Whether its output is shown in a pane; else in a notification."""
    question: str = ""
    """Asked before; empty: not asked."""

    @property
    def title(self) -> str:
        """The command line, as a title."""
        return escape_line(" ".join(self.words))


class TopKey(NamedTuple):
    """A key that runs a verb."""

    key: str
    """The name that textual gives it."""
    shown: str
    effect: str
    command: Callable[[TopRow], TopCommand | str]
    """Returns the command, or why there is none."""


def _show(*words: str) -> Callable[[TopRow], TopCommand]:
    """Return a command that shows the output of a verb."""

    def command(row: TopRow) -> TopCommand:
        verb, *options = words
        return TopCommand((verb, address(row), *options), is_shown=True)

    return command


def _restart(row: TopRow) -> TopCommand:
    name = escape_line(row.name)
    what = f"all workers of {name}" if row.is_service else name
    return TopCommand(("restart", row.name), False, f"Restart {what}?")


def _stop(row: TopRow) -> TopCommand:
    name = escape_line(row.name)
    what = f"all workers of {name}" if row.is_service else name
    return TopCommand(("stop", row.name), False, f"Stop {what}, and its dependents?")


def _start(row: TopRow) -> TopCommand:
    return TopCommand(("start", row.name), False)


def _scale_up(row: TopRow) -> TopCommand:
    return TopCommand(("scale", f"{row.service}={row.worker_count + 1}"), False)


def _scale_down(row: TopRow) -> TopCommand | str:
    service = escape_line(row.service)
    if row.worker_count < 1:
        return f"{service} has no workers"
    fewer = row.worker_count - 1
    question = f"Scale {service} from {row.worker_count} down to {fewer}?"
    return TopCommand(("scale", f"{row.service}={fewer}"), False, question)


KEYS: Final = (
    TopKey("r", "r", "restart", _restart),
    TopKey("x", "x", "stop", _stop),
    TopKey("S", "S", "start", _start),
    TopKey("plus", "+", "add a worker", _scale_up),
    TopKey("minus", "-", "remove a worker", _scale_down),
    TopKey("t", "t", "threads", _show("thread-dump")),
    TopKey("T", "T", "tasks", _show("scheduler-dump")),
    TopKey("d", "d", "doctor", _show("doctor")),
    TopKey("l", "l", "logs", _show("logs", "--tail", "500")),
    TopKey("enter", "enter", "status", _show("status")),
)
"""The keys that run a verb."""


def address(row: TopRow) -> str:
    """Return what verbs that show something call the row.

    Several workers that registered on their own may have the same name.
    """
    if row.is_managed or row.process_id is None:
        return row.name
    return str(row.process_id)


def command_of(key: TopKey, row: TopRow) -> TopCommand | str:
    """Return what *key* runs for *row*, or why it runs nothing."""
    if row.name.startswith("-") or "\0" in row.name:  # not an option of a verb
        return f"{escape_line(row.name)} cannot be named on a command line"
    command = key.command(row)
    if isinstance(command, TopCommand) and not command.is_shown and not row.is_managed:
        return f"{escape_line(row.name)} was not started by this controller"
    return command
