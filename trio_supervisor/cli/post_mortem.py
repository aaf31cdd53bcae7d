"""List and show post-mortems: records of workers that crashed, hung or were killed."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from typing import Any

from trio_supervisor.cli.connection import socket_path
from trio_supervisor.cli.output import print_json, print_line, print_table
from trio_supervisor.errors import NoSuchWorkerError
from trio_supervisor.process.output.escaping import escape_line
from trio_supervisor.process.spawn.environment import state_path


def run_post_mortem(arguments: Namespace) -> None:
    """List all post-mortems, or show the latest of one worker, or one file."""
    directory = state_path(socket_path(arguments.socket), arguments.state)
    records = _records(directory)
    if arguments.name is not None:
        records = [r for r in records if _matches(r, arguments.name)]
        if not records:
            raise NoSuchWorkerError(
                f"no post-mortem of {arguments.name!r} in {directory}"
            )
    if arguments.json:
        print_json(records if arguments.name is None else records[-1])
    elif arguments.name is not None:
        _show(records[-1])
    elif not records:
        print_line(f"no post-mortems in {directory}")
    else:
        rows = [
            [
                str(record.get("time", ""))[:19],
                str(record.get("name", "-")),
                str(record.get("process_id", "-")),
                _why(record),
                os.path.basename(record["file"]),
            ]
            for record in records
        ]
        print_table(["TIME", "NAME", "PID", "WHY", "FILE"], rows)


def _records(directory: str) -> list[dict[str, Any]]:
    """Return the records in the files of *directory*, the oldest first."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".json"))
    except OSError:
        return []
    records = []
    for name in names:
        path = os.path.join(directory, name)
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                record = json.load(file)
        except (OSError, ValueError):
            continue  # removed since it was listed, or not a post-mortem
        if isinstance(record, dict):
            records.append({**record, "file": path})
    return records


def _matches(record: dict[str, Any], name: str) -> bool:
    own = str(record.get("name", ""))
    file = os.path.basename(record["file"])
    return name in (own, own.rpartition(".")[0], file, str(record.get("process_id")))


def _why(record: dict[str, Any]) -> str:
    reasons = [e.get("cause", "") for e in record.get("evidence", [])]
    cause = str(record.get("cause", ""))
    how = str(record.get("exit", ""))
    first = cause if cause != "exit" else ""
    why = ", ".join(dict.fromkeys(filter(None, [first, *reasons, how])))
    repeats = record.get("repeats", 1)
    if not isinstance(repeats, int) or repeats < 2:
        return why
    return f"{why} ({repeats} times since {str(record.get('since', ''))[:19]})"


def _show(record: dict[str, Any]) -> None:
    print_line(f"{record.get('name')} (pid {record.get('process_id')}): {_why(record)}")
    print_line(
        f"exited at {record.get('time')}, incarnation {record.get('incarnation')}, "
        f"generation {record.get('generation')}"
    )
    if (ready_for := record.get("ready_for")) is not None:
        print_line(f"ready for {ready_for:.1f} s")
    if record.get("status"):
        print_line(f"last status: {record['status']}")
    if record.get("problem"):
        print_line(str(record["problem"]))
    for evidence in record.get("evidence", []):
        _section(f"stack dump before stopping ({evidence.get('cause')})")
        print(str(evidence.get("stacks", "")).rstrip())
    if record.get("fault"):
        _section("output of faulthandler")
        print(str(record["fault"]).rstrip())
    if record.get("last_lines"):
        _section("last lines of output")
        for line in record["last_lines"]:
            print_line(str(line))
    print(f"\n({escape_line(record['file'])})")


def _section(title: str) -> None:
    print(f"\n--- {escape_line(title)}")
