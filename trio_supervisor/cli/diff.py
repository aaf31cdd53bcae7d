"""Compare the workers before the last reload with those that run now."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, Final

from trio_supervisor.cli.connection import (
    Deadline,
    SupervisorConnection,
    socket_path,
)
from trio_supervisor.cli.output import (
    format_duration,
    print_json,
    print_line,
    print_table,
)
from trio_supervisor.wire.json_tree import Object

_HEADER: Final = ("NAME", "START", "MEMORY", "CHANGE", "FDS", "UPTIME")
_MEBIBYTE: Final = 2**20
_NOTHING: Final = "-"
Worker = Mapping[str, Any]
"""The fields of `WorkerMeasures`."""


def run_diff(arguments: Namespace) -> None:
    """Print the figures of both generations side by side."""
    path = socket_path(arguments.socket)
    with SupervisorConnection(path, Deadline(arguments.timeout)) as connection:
        report = connection.ask("diff")
    if arguments.json:
        print_json(report)
        return
    previous, current = report["previous"], report["current"]
    if previous is None:
        print_line("no reload yet: there is nothing to compare with")
    else:
        print_line(f"before: {_described(previous)}")
    print_line(f"now:    {_described(current)}")
    print_table(_HEADER, rows_of(previous, current))


def _described(generation: Object) -> str:
    seconds, moment = generation["import_seconds"], generation["measured_at"]
    imported = "" if seconds is None else f", imported in {seconds:.2f} s"
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    return f"generation {generation['number']}{imported}, measured {clock}"


def rows_of(previous: Object | None, current: Object) -> list[tuple[str, ...]]:
    """Return a row for each worker of both, and their total.

    Args:
        previous: None: there is only one generation.
    """
    new = {worker["name"]: worker for worker in current["workers"]}
    old = new
    if previous is not None:
        old = {worker["name"]: worker for worker in previous["workers"]}
    names = dict.fromkeys((*new, *old))
    rows = [_row(name, old.get(name), new.get(name)) for name in names]
    if len(rows) > 1:
        now = _total(new)
        rows.append(_row("total", now if previous is None else _total(old), now))
    return rows


def _row(name: str, old: Worker | None, new: Worker | None) -> tuple[str, ...]:
    def pair(field: str, show: Callable[[Any], str], unit: str = "") -> str:
        before = None if old is None else old[field]
        now = None if new is None else new[field]
        if before is None and now is None:
            return _NOTHING
        if old is new:
            return f"{show(now)}{unit}"
        if now is None:
            return f"{show(before)}{unit} → {_NOTHING}"
        return f"{_NOTHING if before is None else show(before)} → {show(now)}{unit}"

    return (
        name,
        pair("start_seconds", "{:.2f}".format, " s"),
        pair("memory", _mebibytes, " MiB"),
        _change(old, new),
        pair("descriptors", str),
        pair("uptime", format_duration),
    )


def _mebibytes(size: int) -> str:
    return f"{size / _MEBIBYTE:.1f}"


def _change(old: Worker | None, new: Worker | None) -> str:
    """Return the change of memory."""
    before, now = (old or {}).get("memory"), (new or {}).get("memory")
    if old is new:
        return _NOTHING
    return f"{now / before - 1:+.0%}" if before and now else _NOTHING


def _total(workers: Mapping[str, Worker]) -> Worker:
    """Return the sums of what can be added up."""
    total: dict[str, Any] = {"start_seconds": None, "uptime": None}
    for field in ("memory", "descriptors"):
        known = [w[field] for w in workers.values() if w[field] is not None]
        total[field] = sum(known) if known else None
    return total
