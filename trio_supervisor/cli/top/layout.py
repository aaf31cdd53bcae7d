"""Divide the width of the terminal between the columns of the table."""

from __future__ import annotations

from typing import Final, NamedTuple

_NARROW: Final = 80
_LEAST_STATUS: Final = 8


class TopLayout(NamedTuple):
    """The columns of the table."""

    sparks: int
    """Characters of a sparkline."""
    columns: list[tuple[str, int]]
    """Title and width of each column, with a space behind each but the last."""


def layout(width: int) -> TopLayout:
    """Return the columns for a terminal of *width* columns.

    All fit 80 columns; what a wider terminal has more goes to the names, the
    sparklines, and the status texts.
    """
    extra = max(0, width - _NARROW)
    name, sparks = 13 + min(17, extra // 4), 4 + min(12, extra // 8)
    columns = [
        ("NAME", name),
        ("STATE", 9),
        ("PID", 8),
        ("UPTIME", 8),
        ("RST", 4),
        ("CPU", 6),
        ("", sparks + 1),
        ("MEM", 6),
        ("", sparks + 1),
        ("LAG", 5),
    ]
    taken = sum(width for _, width in columns)
    return TopLayout(
        sparks, [*columns, ("STATUS", max(_LEAST_STATUS, width - taken - 1))]
    )
