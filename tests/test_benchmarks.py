"""Test that the benchmarks run and judge their targets correctly."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from benchmarks.frame import (
    Frame,
    Options,
    Row,
    format_comparison,
    format_figure,
    format_table,
    percentile,
)
from benchmarks.targets import TARGETS, Target

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the benchmarks read /proc"
)


def make_row(name: str = "ping", **fields: Any) -> Row:
    """Return a row whose figure is twice its floor."""
    defaults: dict[str, Any] = {
        "entry": "round_trip",
        "unit": "µs",
        "samples": (180.0, 200.0, 220.0),
        "floor_name": "echo",
        "floor_samples": (90.0, 100.0, 110.0),
    }
    return Row(name=name, **{**defaults, **fields})


def test_smoke_run_prints_table_and_writes_json(tmp_path: Path) -> None:
    """One real entry runs: two repeats of two commands against an empty Python."""
    file = tmp_path / "results" / "run.json"
    words = ["cli_call", "--quick", "--json", str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        check=True,
    )
    document = json.loads(file.read_text())
    names = ["ping, whole process", "status --json, whole process"]
    assert [row["name"] for row in document["rows"]] == names
    assert [len(row["samples"]) for row in document["rows"]] == [2, 2]
    for row in document["rows"]:  # two samples each, of any value
        least = statistics.median(row["floor_samples"])
        ratio = statistics.median(row["samples"]) / least
        assert row["ratio"] == pytest.approx(ratio)
    assert document["machine"]["packages"]["trio"] == trio.__version__
    assert "≤ 3.5 x floor" in done.stdout


def test_format_table_has_all_columns() -> None:
    """There is one line for each row, under one header."""
    header, _, line = format_table([make_row()]).splitlines()
    assert header.split("|")[1].strip() == "what"
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["ping", "100", "200", "220", "µs", "2.00", "≤ 1.2 x floor", "NO"]


def test_format_table_row_without_target_has_no_verdict() -> None:
    """The row is printed anyway."""
    row = make_row("something else")
    assert row.is_reached is None
    assert format_table([row]).splitlines()[-1].split("|")[-2].strip() == "-"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(Target(ratio_at_most=2), True, id="ratio, just reached"),
        pytest.param(Target(ratio_at_most=1.99), False, id="ratio, missed"),
        pytest.param(Target(ratio_at_least=2), True, id="rate, just reached"),
        pytest.param(Target(ratio_at_least=2.01), False, id="rate, missed"),
        pytest.param(Target(median_at_most=20), True, id="median, just reached"),
        pytest.param(Target(median_at_most=19), False, id="median, missed"),
        pytest.param(Target(tail_at_most=3), True, id="tail, just reached"),
        pytest.param(Target(tail_at_most=2.9), False, id="tail, missed"),
        pytest.param(
            Target(ratio_at_most=5, tail_at_most=2), False, id="one of two missed"
        ),
    ],
)
def test_target_is_reached_if_all_bounds_hold(target: Target, expected: bool) -> None:
    """The median is 20, the 99th percentile 60, the floor 10."""
    assert target.is_reached(median=20, p99=60, floor=10) is expected


def test_target_ratio_without_floor_is_not_reached() -> None:
    """A ratio that was not measured is not reached."""
    assert not Target(ratio_at_most=2).is_reached(median=1, p99=1, floor=None)


@pytest.mark.parametrize(
    ("samples", "percent", "expected"),
    [
        pytest.param([5.0], 99, 5.0, id="one sample"),
        pytest.param([float(n) for n in range(1, 101)], 99, 99.0, id="a hundred"),
        pytest.param([3.0, 1.0, 2.0], 99, 3.0, id="few: the worst"),
        pytest.param([3.0, 1.0, 2.0], 1, 1.0, id="few: the least"),
    ],
)
def test_percentile_is_a_sample(
    samples: list[float], percent: float, expected: float
) -> None:
    """By nearest rank, each percentile is a measured figure."""
    assert percentile(samples, percent) == expected


def test_p99_of_rate_is_slow_end() -> None:
    """For answers per second, low values are the bad ones."""
    assert make_row(unit="1000/s", samples=(50.0, 60.0, 70.0)).p99 == 50.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "-"), (0.25, "0.25"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346")],
)
def test_format_figure_has_three_digits(value: float | None, expected: str) -> None:
    """More digits would be noise."""
    assert format_figure(value) == expected


def test_format_comparison_shows_changed_and_new_rows() -> None:
    """Rows are matched by name."""
    before = {"started": "then", "rows": [make_row(samples=(100.0,)).to_json()]}
    text = format_comparison([make_row(), make_row("status, 4 workers")], before)
    assert "ping: 100 [1.00] → 200 [2.00] µs, +100%" in text
    assert "status, 4 workers: new" in text


async def test_take_runs_series_in_turns() -> None:
    """What slows the machine down then slows the floor down as well."""
    frame = Frame(Options(repeats=2))
    calls: list[str] = []

    async def figure() -> float:
        calls.append("figure")
        return 2.0

    async def floor() -> float:
        calls.append("floor")
        return 1.0

    row = await frame.measure("anything", figure, floor=("least", floor))
    assert calls == ["figure", "floor", "figure", "floor"]
    assert (row.samples, row.floor_samples, row.ratio) == ((2.0, 2.0), (1.0, 1.0), 2.0)
    assert frame.rows == [row]


def test_every_target_belongs_to_a_row() -> None:
    """A renamed row would otherwise silently lose its target."""
    sources = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    for name in TARGETS:
        first = name.split(",")[0].split(":")[0]
        assert sources.count(first) > 1, name
