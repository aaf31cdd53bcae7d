"""What commands print: tables and colours on a terminal, plain columns elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

STATE_COLOURS = {
    "ready": "green",
    "starting": "yellow",
    "stopping": "yellow",
    "backoff": "yellow",
    "unhealthy": "red",
    "failed": "red",
    "stopped": "dim",
}


def print_json(value: object) -> None:
    """Print *value* as JSON, indented for people that look at it."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print *rows* under *header*; a cell that is a state's name has its colour."""
    if sys.stdout.isatty():
        _print_rich(header, rows)
        return
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _print_rich(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # Only a terminal pays for it: importing rich takes longer than the call itself.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(
            *(
                f"[{STATE_COLOURS[cell]}]{cell}[/]"
                if cell in STATE_COLOURS
                else escape(cell)
                for cell in row
            )
        )
    Console().print(table)


def format_duration(seconds: float | None) -> str:
    """Return a span of time for people: ``12.3s``, ``4m 05s``, ``3h 20m``."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600}h"
