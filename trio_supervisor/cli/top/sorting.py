"""Sort and filter the rows."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Final

from trio_supervisor.cli.top.rows import TopRow
from trio_supervisor.policy.addressing import is_pattern

_UNKNOWN: Final = float("-inf")


def _number(value: float | None) -> float:
    return _UNKNOWN if value is None else value


_KEYS: Final[dict[str, Callable[[TopRow], float]]] = {
    "cpu": lambda row: _number(row.cpu),
    "memory": lambda row: _number(row.memory),
    "restarts": lambda row: row.restarts,
    "uptime": lambda row: -_number(row.uptime) if row.uptime is not None else _UNKNOWN,
    "lag": lambda row: _number(row.lag),
    # What is not ready needs attention first.
    "state": lambda row: row.state != "ready",
}

ORDERS: Final = ("name", *_KEYS)
"""Columns to sort by, in the order in which the key ``s`` chooses them."""


def next_order(order: str) -> str:
    """Return the column after *order*."""
    return ORDERS[(ORDERS.index(order) + 1) % len(ORDERS)]


def sort_rows(rows: list[TopRow], order: str) -> list[TopRow]:
    """Return the rows in order; the rows of services only by name.

    Numbers are sorted from the highest; uptime from the latest start.
    """
    if order == "name":
        return rows
    workers = [row for row in rows if not row.is_service]
    return sorted(workers, key=_KEYS[order], reverse=True)


def filter_rows(rows: list[TopRow], text: str) -> list[TopRow]:
    """Return the rows whose name contains *text*, or matches it if it is a pattern."""
    if is_pattern(text):
        return [row for row in rows if fnmatchcase(row.name, text)]
    wanted = text.casefold()
    return [row for row in rows if wanted in row.name.casefold()]
