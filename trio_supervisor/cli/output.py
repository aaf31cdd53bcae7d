"""Print lines, JSON, tables and progress: in colour on a terminal, plain elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from typing import Final, Self

from trio_supervisor.cli.encoding import is_unicode, raw_stream
from trio_supervisor.process.output.escaping import escape_json, escape_line
from trio_supervisor.process.output.terminal_kind import has_colours, has_escapes

STATE_COLOURS = {
    "ready": "green",
    "waiting": "cyan",
    "unready": "magenta",
    "starting": "yellow",
    "stopping": "yellow",
    "backoff": "yellow",
    "unhealthy": "red",
    "failed": "red",
    "stopped": "dim",
}


_GAP: Final = 3
"""Columns between two columns of a table."""
_LEAST: Final = 12
"""Columns that a cut column of a table keeps, however narrow the terminal is."""
# To the top left corner, and nothing below it.
_CLEAR: Final = "\x1b[H\x1b[J"


def print_note(text: str) -> None:
    """Print *text* to standard error, as what the program itself says."""
    print(f"trio-supervisor: {escape_line(text)}", file=sys.stderr)


def clear_terminal() -> None:
    """Clear the terminal that standard output is, if it can be cleared."""
    if sys.stdout.isatty() and has_escapes(sys.stdout.fileno()):
        sys.stdout.flush()
        stream = raw_stream(sys.stdout)
        stream.write(_CLEAR)
        stream.flush()


def print_line(text: str) -> None:
    """Print *text* as one line; control characters from a peer are escaped."""
    print(escape_line(text))


def print_json(value: object) -> None:
    """Print *value* as indented JSON."""
    print(to_json(value, indent=2))


def to_json(value: object, indent: int | None = None) -> str:
    """Return *value* as JSON that the encoding of standard output can represent."""
    ensure_ascii = not is_unicode(sys.stdout.encoding)
    return escape_json(json.dumps(value, indent=indent, ensure_ascii=ensure_ascii))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print *rows* under *header*; a cell that is the name of a state is coloured.

    Cells are escaped: a worker that registered on its own may have any name.
    """
    rows = [[escape_line(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _print_plain(header, rows)
        return
    rows = fit(header, rows, shutil.get_terminal_size().columns)
    if has_colours(sys.stdout.fileno()):
        _print_rich(header, rows)
    else:
        _print_plain(header, rows, _GAP)


def _print_plain(
    header: Sequence[str], rows: Sequence[Sequence[str]], gap: int = 2
) -> None:
    widths = _widths(header, rows)
    for row in (header, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print((" " * gap).join(cells).rstrip())


def _print_rich(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # Imported only for a terminal: importing rich takes longer than the whole call.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(
            *(
                f"[{STATE_COLOURS[cell]}]{cell}[/]"
                if cell in STATE_COLOURS
                else escape(cell)
                for cell in row
            )
        )
    Console(file=raw_stream(sys.stdout)).print(table)


def fit(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> list[list[str]]:
    """Return *rows* with cells cut, so that each fits one line of *width* columns.

    The last column is cut first, then the widest; none below its header or `_LEAST`.
    """
    widths = _widths(header, rows)
    least = [min(w, max(len(h), _LEAST)) for w, h in zip(widths, header, strict=True)]
    excess = sum(widths) + _GAP * len(widths) - 1 - width  # a space at each edge
    last = len(widths) - 1
    for column in sorted(range(len(widths)), key=lambda c: (c != last, -widths[c])):
        cut = max(0, min(excess, widths[column] - least[column]))
        widths[column] -= cut
        excess -= cut
    return [
        [_cut(cell, room) for cell, room in zip(row, widths, strict=True)]
        for row in rows
    ]


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(header, *rows, strict=True)]


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def format_duration(seconds: float | None) -> str:
    """Return a time span as ``12.3s``, ``4m 05s`` or ``3h 20m``; ``-`` for None."""
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


class Progress:
    """A progress bar for a long call, on a terminal only; a context manager."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._is_shown = False
        self.is_possible = sys.stderr.isatty() and has_escapes(sys.stderr.fileno())
        """Whether standard error is a terminal that can show it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            self._put("\r\x1b[K")

    def show(self, done: float) -> None:
        """Show the fraction *done*, from 0 to 1."""
        if not self.is_possible:
            return
        self._is_shown = True
        width = 30
        full = round(max(0.0, min(done, 1.0)) * width)
        bar = "█" * full + "░" * (width - full)
        self._put(f"\r\x1b[K{escape_line(self._title)} {bar} {done:4.0%}")

    def _put(self, text: str) -> None:
        stream = raw_stream(sys.stderr)
        stream.write(text)
        stream.flush()
