"""Test the order of the rows, and the filter."""

from __future__ import annotations

import pytest

from tests.kits.top_snapshots import top_snapshot, top_worker
from trio_supervisor.cli.top.history import UsageHistory
from trio_supervisor.cli.top.rows import TopRow, rows_of
from trio_supervisor.cli.top.sorting import (
    ORDERS,
    filter_rows,
    next_order,
    sort_rows,
)


@pytest.fixture
def rows() -> list[TopRow]:
    """Rows of two services; web has two workers."""
    return rows_of(
        top_snapshot(
            top_worker("web.0", usage={"cpu_share": 0.1, "rss": 30}, uptime=5.0),
            top_worker("web.1", usage={"cpu_share": 0.9, "rss": 10}, restarts=1),
            top_worker("db.0", state="failed", uptime=None),
            lags={"db.0": 0.5},
        ),
        UsageHistory(),
        4,
    )


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("name", ["web", "web.0", "web.1", "db.0"]),
        ("cpu", ["web.1", "web.0", "db.0"]),
        ("memory", ["web.0", "web.1", "db.0"]),
        ("restarts", ["web.1", "web.0", "db.0"]),
        ("uptime", ["web.0", "web.1", "db.0"]),
        ("lag", ["db.0", "web.0", "web.1"]),
        ("state", ["db.0", "web.0", "web.1"]),
    ],
)
def test_sort_rows(rows: list[TopRow], order: str, names: list[str]) -> None:
    assert [row.name for row in sort_rows(rows, order)] == names


def test_next_order_returns_to_the_first() -> None:
    order, seen = ORDERS[0], []
    for _ in ORDERS:
        seen.append(order)
        order = next_order(order)
    assert (tuple(seen), order) == (ORDERS, ORDERS[0])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["web", "web.0", "web.1", "db.0"]),
        ("WEB", ["web", "web.0", "web.1"]),
        ("*.0", ["web.0", "db.0"]),
        ("none", []),
    ],
)
def test_filter_rows(rows: list[TopRow], text: str, names: list[str]) -> None:
    assert [row.name for row in filter_rows(rows, text)] == names
