"""Test the table that compares generations."""

from __future__ import annotations

from typing import Any

from trio_supervisor.cli.diff import rows_of

MEBIBYTE = 2**20


def worker(name: str, **figures: Any) -> dict[str, Any]:
    defaults = {"start_seconds": 0.25, "memory": 20 * MEBIBYTE, "descriptors": 12}
    return {"name": name, "uptime": 60.0, **defaults, **figures}


def generation(*workers: dict[str, Any]) -> dict[str, Any]:
    return {"workers": list(workers)}


def test_rows_have_figures_of_both() -> None:
    old = generation(worker("web.0", uptime=3 * 86_400))
    new = generation(worker("web.0", start_seconds=0.5, memory=25 * MEBIBYTE))
    assert rows_of(old, new) == [
        (
            "web.0",
            "0.25 → 0.50 s",
            "20.0 → 25.0 MiB",
            "+25%",
            "12 → 12",
            "3d 0h → 1m 00s",
        )
    ]


def test_rows_of_added_and_removed_workers_and_total() -> None:
    old = generation(worker("web.0"), worker("gone.0"))
    new = generation(worker("web.0"), worker("new.0", memory=None))
    rows = {name: figures for name, *figures in rows_of(old, new)}
    assert list(rows) == ["web.0", "new.0", "gone.0", "total"]
    assert rows["new.0"] == ["- → 0.25 s", "-", "-", "- → 12", "- → 1m 00s"]
    assert rows["gone.0"] == [
        "0.25 s → -",
        "20.0 MiB → -",
        "-",
        "12 → -",
        "1m 00s → -",
    ]
    assert rows["total"] == ["-", "40.0 → 20.0 MiB", "-50%", "24 → 24", "-"]


def test_rows_before_the_first_reload_have_one_figure() -> None:
    new = generation(worker("a.0"), worker("b.0", start_seconds=None))
    assert rows_of(None, new) == [
        ("a.0", "0.25 s", "20.0 MiB", "-", "12", "1m 00s"),
        ("b.0", "-", "20.0 MiB", "-", "12", "1m 00s"),
        ("total", "-", "40.0 MiB", "-", "24", "-"),
    ]
