"""Test the rows of the table."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kits.top_snapshots import top_snapshot, top_worker
from trio_supervisor.cli.top.history import UsageHistory
from trio_supervisor.cli.top.rows import TopRow, TopSnapshot, record, rows_of

MIB = 2**20


def rows(snapshot: TopSnapshot) -> list[TopRow]:
    return rows_of(snapshot, UsageHistory(), 4)


def cells(**fields: Any) -> list[str]:
    (row,) = rows(top_snapshot(top_worker("web.0", **fields)))
    return row.cells


def test_service_with_several_workers_has_a_row_of_totals() -> None:
    usage = {"cpu_share": 0.25, "rss": MIB}
    found = rows(
        top_snapshot(
            top_worker("web.1", usage=usage, restarts=2),
            top_worker("web.0", usage=usage, state="failed"),
            top_worker("db.0"),
            lags={"web.0": 0.01, "web.1": 0.5},
        )
    )
    assert [row.name for row in found] == ["web", "web.0", "web.1", "db.0"]
    assert [row.is_service for row in found] == [True, False, False, False]
    web = found[0]
    assert (web.state, web.restarts, web.worker_count) == ("1/2", 2, 2)
    assert (web.cpu, web.memory, web.lag) == (0.5, 2 * MIB, 0.5)
    assert found[1].cells[0] == "  web.0"
    assert found[3].cells[0] == "db.0"


def test_service_without_workers_has_a_row() -> None:
    (row,) = rows(top_snapshot(services=["idle"]))
    assert (row.name, row.state, row.worker_count) == ("idle", "0/0", 0)


def test_cells_show_usage_and_lag() -> None:
    snapshot = top_snapshot(
        top_worker("web.0", usage={"cpu_share": 0.125, "rss": 5 * MIB, "pss": MIB}),
        lags={"web.0": 0.0042},
    )
    history = UsageHistory()
    record(snapshot, history)
    (row,) = rows_of(snapshot, history, 2)
    wanted = ["web.0", "ready", "100", "1m 01s", "0", "12.5%", " ▂", "1.0M", " ▁"]
    assert row.cells == [*wanted, "4ms", ""]


@pytest.mark.parametrize(
    ("usage", "cpu", "memory"),
    [
        (None, "-", "-"),
        ({"cpu_share": None, "rss": 100 * MIB}, "-", "100M"),
        ({"cpu_share": 0.9994, "rss": 999 * MIB}, "99.9%", "999M"),
        ({"cpu_share": 12.5, "rss": 2048 * MIB}, "1250%", "2.00G"),
    ],
)
def test_cells_are_short(usage: Any, cpu: str, memory: str) -> None:
    shown = cells(usage=usage)
    assert (shown[5], shown[7]) == (cpu, memory)


def test_control_characters_are_escaped() -> None:
    shown = cells(status="a\x1b[2Jb\nc", state="\x07")
    assert shown[-1] == r"a\x1b[2Jb\x0ac"
    assert shown[1] == r"\x07"


def test_count_during_reload_is_that_of_the_new_generation() -> None:
    found = rows(
        top_snapshot(
            top_worker("web.0"),
            top_worker("web.0", generation=2, process_id=200),
            top_worker("web.1", generation=2),
        )
    )
    assert {row.worker_count for row in found} == {2}
    assert len({row.key for row in found}) == 4


def test_workers_that_registered_with_one_name_have_rows_of_their_own() -> None:
    one, two = (
        top_worker("web.0", is_managed=False, connection_id=id_) for id_ in "ab"
    )
    found = rows(top_snapshot(one, two))
    assert len({row.key for row in found}) == len(found) == 3
    assert found[0].worker_count == 0


def test_record_forgets_exited_processes() -> None:
    history = UsageHistory()
    usage = {"cpu_share": 0.5, "rss": MIB}
    record(top_snapshot(top_worker("web.0", usage=usage)), history)
    assert history.cpu(100) == [0.5]
    record(top_snapshot(top_worker("web.0", process_id=None)), history)
    assert history.cpu(100) == []
