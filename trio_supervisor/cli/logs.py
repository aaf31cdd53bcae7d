"""Show output of workers; follow it."""

from __future__ import annotations

import re
from argparse import Namespace

from trio_supervisor.cli.streams import Entry, local_time, stream
from trio_supervisor.errors import BadRequestError
from trio_supervisor.process.output.entries import timestamp
from trio_supervisor.process.output.escaping import escape_line
from trio_supervisor.wire.json_tree import Object

_SHOWN = 100
_MOST = 10_000


def run_logs(arguments: Namespace) -> None:
    """Print each line of workers' output as a line or a JSON object."""
    tail = arguments.tail
    is_filtered = arguments.since is not None or arguments.grep is not None
    if tail is None:
        tail = _MOST if is_filtered else _SHOWN
    fields: Object = {"tail": tail, "follow": arguments.follow}
    if arguments.names:
        fields["names"] = list(arguments.names)
    since = "" if arguments.since is None else timestamp(arguments.since)
    pattern = _pattern(arguments.grep or "")

    def is_shown(entry: Entry) -> bool:
        return entry["time"] >= since and pattern.search(entry["message"]) is not None

    stream(arguments, "logs", fields, _line, is_shown if is_filtered else None)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as exc:
        raise BadRequestError(f"--grep {text!r}: {exc}") from None


def _line(entry: Entry) -> str:
    time = local_time(entry["time"])
    return escape_line(f"{time}  {entry['name']} | {entry['message']}")
