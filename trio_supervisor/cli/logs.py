"""Show events, and output of workers; follow them."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, Final

from trio_supervisor.cli.connection import Deadline, SupervisorConnection, socket_path
from trio_supervisor.cli.output import to_json
from trio_supervisor.process.output.escaping import escape_line
from trio_supervisor.wire.json_tree import Object

# A call needs a deadline; with --follow only Ctrl-C ends it [s].
_NO_DEADLINE: Final = 366 * 86_400.0

_CONTINUATION: Final = "\n    "

Entry = Mapping[str, Any]


def run_events(arguments: Namespace) -> None:
    """Print each event as a line or a JSON object."""
    _stream(arguments, "events", {"follow": arguments.follow}, _event_line)


def run_logs(arguments: Namespace) -> None:
    """Print each line of workers' output as a line or a JSON object."""
    fields: Object = {"tail": arguments.tail, "follow": arguments.follow}
    if arguments.names:
        fields["names"] = list(arguments.names)
    _stream(arguments, "logs", fields, _log_line)


def _stream(
    arguments: Namespace, do: str, fields: Object, show: Callable[[Entry], str]
) -> None:
    path = socket_path(arguments.socket)
    deadline = Deadline(_NO_DEADLINE if arguments.follow else arguments.timeout)

    def on_progress(answer: Object) -> None:
        if (missed := answer.get("missed")) is not None and missed:
            _put(_dropped(missed, arguments.json))
        if arguments.json and "snapshot" in answer:
            _put(to_json({"event": "snapshot", **answer["snapshot"]}))
        for entry in answer.get("entries", ()):
            _put(to_json(entry) if arguments.json else show(entry))
        sys.stdout.flush()

    with SupervisorConnection(path, deadline) as connection:
        connection.ask(do, fields, on_progress=on_progress)


def _dropped(count: int, is_json: bool) -> str:
    if is_json:
        return to_json({"event": "missed", "count": count})
    return f"({count} entries dropped: this command reads too slowly)"


def _put(line: str) -> None:
    print(line)


def _event_line(entry: Entry) -> str:
    time, name = escape_line(str(entry["time"])), escape_line(str(entry["name"]))
    # A continuation line of a message must not look like an event.
    return f"{time}  {name:<12}  {entry['message']}".replace("\n", _CONTINUATION)


def _log_line(entry: Entry) -> str:
    return escape_line(f"{entry['time']}  {entry['name']} | {entry['message']}")
