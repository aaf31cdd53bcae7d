"""Print the entries of a call that sends them in parts, as lines or as JSON."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias

from trio_supervisor.cli.connection import Deadline, SupervisorConnection, socket_path
from trio_supervisor.cli.output import to_json
from trio_supervisor.wire.json_tree import Object

# A call needs a deadline; with --follow only Ctrl-C ends it [s].
_NO_DEADLINE: Final = 366 * 86_400.0

Entry: TypeAlias = Mapping[str, Any]


def stream(
    arguments: Namespace,
    do: str,
    fields: Object,
    show: Callable[[Entry], str],
    is_shown: Callable[[Entry], bool] | None = None,
    before: Callable[[str], Iterable[Entry]] = lambda _: (),
) -> None:
    """Make the call *do*, and print its entries as they come.

    Args:
        show: Returns an entry as a line.
        is_shown: Whether an entry is printed; None: all are, and in JSON also the
            snapshot before them.
        before: Returns what is printed before the entries of the call; its argument
            is the time of the first of these.
    """
    path = socket_path(arguments.socket)
    deadline = Deadline(_NO_DEADLINE if arguments.follow else arguments.timeout)
    has_begun = False

    def on_progress(answer: Object) -> None:
        nonlocal has_begun
        if (missed := answer.get("missed")) is not None and missed:
            print(_dropped(missed, arguments.json))
        if arguments.json and "snapshot" in answer and is_shown is None:
            print(to_json({"event": "snapshot", **answer["snapshot"]}))
        if entries := answer.get("entries", ()):
            if not has_begun:
                put(before(str(entries[0]["time"])), arguments.json, show, is_shown)
            has_begun = True
            put(entries, arguments.json, show, is_shown)
        sys.stdout.flush()

    with SupervisorConnection(path, deadline) as connection:
        connection.ask(do, fields, on_progress=on_progress)


def put(
    entries: Iterable[Entry],
    is_json: bool,
    show: Callable[[Entry], str],
    is_shown: Callable[[Entry], bool] | None = None,
) -> None:
    """Print *entries*."""
    for entry in entries:
        if is_shown is None or is_shown(entry):
            print(to_json(entry) if is_json else show(entry))


def local_time(text: str) -> str:
    """Return a time in UTC as local time if standard output is a terminal."""
    if not sys.stdout.isatty():
        return text
    try:
        local = datetime.fromisoformat(text).astimezone()
    except ValueError:
        return text
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03}"


def _dropped(count: int, is_json: bool) -> str:
    if is_json:
        return to_json({"event": "missed", "count": count})
    return f"({count} entries dropped: this command reads too slowly)"
