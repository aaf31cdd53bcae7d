"""Test the slope against an oracle, and the verdicts on labelled series."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kits.memory_series import HOUR, KINDS, Kind, by_slope, table
from trio_supervisor.policy.leak import BLOCKS, GrowthHistory, SteadyGrowth, slope_of

DOCS = Path(__file__).parents[2] / "docs"

values = st.lists(st.integers(-1000, 1000), min_size=3, max_size=12)


@given(values)
def test_slope_is_the_median_and_lies_in_its_interval(values: list[int]) -> None:
    points = [(float(time), float(value)) for time, value in enumerate(values)]
    slopes = [
        (b[1] - a[1]) / (b[0] - a[0]) for a in points for b in points if a[0] < b[0]
    ]
    slope = slope_of(points)
    assert slope is not None
    assert slope.middle == pytest.approx(median(slopes))
    assert slope.low <= slope.middle <= slope.high


@given(values, st.integers(-50, 50))
def test_slope_moves_with_an_added_line(values: list[int], extra: int) -> None:
    points = [(float(time), float(value)) for time, value in enumerate(values)]
    tilted = [(time, value + extra * time) for time, value in points]
    before, after = slope_of(points), slope_of(tilted)
    assert before is not None
    assert after is not None
    assert after.middle == pytest.approx(before.middle + extra, abs=1e-9)
    assert after.low == pytest.approx(before.low + extra, abs=1e-9)


@given(st.integers(0, 2))
def test_few_points_have_no_slope(count: int) -> None:
    assert slope_of([(float(time), 0.0) for time in range(count)]) is None


@given(st.lists(st.integers(0, 2**40), min_size=BLOCKS * 3, max_size=BLOCKS * 3))
def test_process_that_does_not_exceed_its_past_does_not_leak(sizes: list[int]) -> None:
    """Whatever it did, if it ends below its first size there is no leak."""
    history = GrowthHistory(window=float(BLOCKS), rate=0.5)
    for time, size in enumerate([*sizes, 0, 0]):
        verdict = history.add(float(time), size)
    assert verdict is None


def test_straight_line_is_reported_with_its_rate_after_one_window() -> None:
    history = GrowthHistory(window=48.0, rate=100.0)
    found = [history.add(float(time), 1000 + 200 * time) for time in range(60)]
    first = next(place for place, verdict in enumerate(found) if verdict)
    assert first == 48
    assert found[first] == SteadyGrowth(size=10600, rate=200.0, window=48.0)


@pytest.mark.parametrize("rate", [250.0, 1e9])
def test_growth_below_the_rate_is_no_leak(rate: float) -> None:
    history = GrowthHistory(window=60.0, rate=rate)
    assert not any(history.add(float(time), 200 * time) for time in range(200))


def test_verdict_names_rate_window_and_size() -> None:
    verdict = SteadyGrowth(size=300 * 2**20, rate=2**20 / 60, window=3600.0)
    assert str(verdict) == (
        "its memory has grown by 60.0 MiB per hour for 3600 s (leak_window), now "
        "300.0 MiB"
    )


@pytest.mark.parametrize("kind", [k for k in KINDS if k.leaks_from is not None])
def test_each_leak_is_found_within_a_day(kind: Kind) -> None:
    found = by_slope(kind, 2)
    assert found is not None
    assert found * HOUR < 24 * HOUR


def test_table_in_docs_is_true() -> None:
    assert table() in (DOCS / "monitors.md").read_text(encoding="utf-8")
