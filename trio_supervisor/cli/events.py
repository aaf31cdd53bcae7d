"""Show events, also those of earlier controllers; follow them."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from typing import Final

from trio_supervisor.cli.connection import socket_path
from trio_supervisor.cli.output import print_note
from trio_supervisor.cli.streams import Entry, local_time, put, stream
from trio_supervisor.errors import BadRequestError, NoSupervisorError
from trio_supervisor.policy.addressing import is_named
from trio_supervisor.policy.event_types import EVENT_TYPES
from trio_supervisor.process.output.entries import timestamp
from trio_supervisor.process.output.escaping import escape_line
from trio_supervisor.process.spawn.environment import EVENTS_FILE, state_path

_CONTINUATION: Final = "\n    "
_COMMON: Final = frozenset({"time", "event", "name", "message"})


def run_events(arguments: Namespace) -> None:
    """Print each event as a line or a JSON object."""
    fields = {"follow": arguments.follow}
    if not (arguments.since is not None or arguments.name or arguments.type):
        stream(arguments, "events", fields, _line)
        return
    _check_types(arguments.type or [])
    directory = state_path(socket_path(arguments.socket), arguments.state)
    since = "" if arguments.since is None else timestamp(arguments.since)

    def is_shown(entry: Entry) -> bool:
        return (
            str(entry["time"]) >= since
            and (not arguments.name or is_named(str(entry["name"]), arguments.name))
            and (not arguments.type or entry["event"] in arguments.type)
        )

    def before(first: str) -> Iterator[Entry]:
        return (entry for entry in _history(directory) if str(entry["time"]) < first)

    try:
        stream(arguments, "events", fields, _line, is_shown, before)
    except NoSupervisorError:
        if arguments.follow or not os.path.exists(_path(directory)):
            raise
        put(_history(directory), arguments.json, _line, is_shown)
        sys.stdout.flush()
        print_note(f"no supervisor answers; these events are from {_path(directory)}")


def _check_types(types: list[str]) -> None:
    for each in types:
        if each not in EVENT_TYPES:
            # Imported only for the message: it takes longer than the whole call.
            from trio_supervisor.application.nearest import did_you_mean

            hint = did_you_mean(each, EVENT_TYPES)
            known = ", ".join(EVENT_TYPES)
            problem = f"no event is of type {each!r}{hint}; types: {known}"
            raise BadRequestError(problem)


def _history(directory: str) -> Iterator[Entry]:
    """Yield the events in the files of the state directory, the oldest first."""
    path = _path(directory)
    for name in (f"{path}.1", path):
        try:
            with open(name, encoding="utf-8", errors="replace") as file:
                yield from filter(None, map(_entry, file))
        except FileNotFoundError:
            continue
        except OSError as exc:
            print_note(f"cannot read {name}: {exc.strerror}")


def _entry(line: str) -> Entry | None:
    """Return the event in *line*; None: it is damaged, as after a full disk."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.keys() >= _COMMON else None


def _path(directory: str) -> str:
    return os.path.join(directory, EVENTS_FILE)


def _line(entry: Entry) -> str:
    time = escape_line(local_time(str(entry["time"])))
    name = escape_line(str(entry["name"]))
    # A continuation line of a message must not look like an event.
    return f"{time}  {name:<12}  {entry['message']}".replace("\n", _CONTINUATION)
