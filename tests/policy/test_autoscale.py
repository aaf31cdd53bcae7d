"""How many workers are wanted for which load."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.policy.autoscale import TOLERANCE, Autoscaler, ScalingRule

RULE = ScalingRule(
    minimum=2, maximum=16, target=0.5, per_worker=8.0, scale_down_after=60.0
)
INTERVAL = 5.0

rules = st.builds(
    lambda minimum, more, target, per_worker, after: ScalingRule(
        minimum=minimum,
        maximum=minimum + more,
        target=target,
        per_worker=per_worker,
        scale_down_after=after,
    ),
    st.integers(1, 20),
    st.integers(0, 100),
    st.floats(0.05, 1),
    st.floats(0.1, 1000),
    st.floats(0, 300),
)
loads = st.floats(0, 1e6)


def play(rule: ScalingRule, loads: list[float], count: int) -> list[int]:
    """Return the counts after each sample; decisions are carried out at once."""
    scaler, counts = Autoscaler(rule), []
    for number, load in enumerate(loads):
        count = scaler.decide(number * INTERVAL, load, count)
        counts.append(count)
    return counts


@pytest.mark.parametrize(
    ("load", "count", "wanted"),
    [
        (16, 4, 4),  # each at the target
        (17.5, 4, 4),  # within a tenth
        (18, 4, 5),
        (14.5, 4, 4),
        (12, 4, 3),
        (0, 4, 2),
        (32, 8, 8),
        (1000, 4, 8),  # doubles at most
        (1000, 2, 6),  # or four more
        (1000, 12, 16),
        (0, 0, 2),
        (4, 30, 2),
    ],
)
def test_wanted(load: float, count: int, wanted: int) -> None:
    assert RULE.wanted(load, count) == wanted


@pytest.mark.parametrize("load", [1e308, math.inf])
def test_enormous_loads_want_the_most(load: float) -> None:
    assert RULE.wanted(load, 4) == 8


def test_fewer_are_kept_only_after_a_while() -> None:
    counts = play(RULE, [40.0] * 3 + [0.0] * 15, 2)
    assert counts[:3] == [6, 10, 10]
    # 60 s after the last look that wanted ten.
    assert counts[3:] == [10] * 12 + [2] * 3


def test_a_short_pause_stops_none() -> None:
    loads = ([40.0] * 2 + [0.0] * 10) * 5
    assert set(play(RULE, loads, 10)) == {10}


def test_a_peak_within_the_while_counts() -> None:
    """As few as were enough all that time, not as few as are enough now."""
    loads = [40.0] + [8.0] * 6 + [24.0] + [8.0] * 11
    counts = play(RULE, loads, 10)
    assert counts[:13] == [10] * 13
    assert counts[13] == 6
    assert counts[-1] == 6


def test_none_are_stopped_before_enough_is_known() -> None:
    """Right after a reload or the start of a controller."""
    assert play(RULE, [0.0] * 13, 10) == [10] * 12 + [2]


def test_a_lower_maximum_counts_at_once() -> None:
    assert play(RULE, [1000.0], 30) == [16]


@given(rules, loads, st.integers(1, 150))
def test_constant_load_ends_in_one_number(
    rule: ScalingRule, load: float, count: int
) -> None:
    settled = math.ceil(rule.scale_down_after / INTERVAL) + 12
    counts = play(rule, [load] * (settled + 50), count)
    assert len(set(counts[settled:])) == 1
    # Once it grows, it does not shrink, and the other way round.
    steps = [after - before for before, after in pairwise(counts)]
    assert min(steps) >= 0 or max(steps) <= 0


@given(rules, st.lists(loads, min_size=1, max_size=60), st.integers(1, 150))
def test_number_stays_within_bounds_and_overshoots_nothing(
    rule: ScalingRule, loads: list[float], count: int
) -> None:
    counts = play(rule, loads, count)
    needed = math.ceil(max(loads) / (rule.per_worker * rule.target))
    for found in counts:
        assert found <= max(count, rule.minimum, needed)
        assert rule.minimum <= found or found == count
        assert found <= rule.maximum


@given(rules, loads, st.integers(1, 150))
def test_settled_use_is_near_the_target(
    rule: ScalingRule, load: float, count: int
) -> None:
    settled = math.ceil(rule.scale_down_after / INTERVAL) + 12
    found = play(rule, [load] * settled, count)[-1]
    if rule.minimum < found < rule.maximum:
        use = rule.use(load, found)
        assert use <= rule.target * (1 + TOLERANCE) + 1e-6
        # One less would not do, or is within the tolerance.
        fewer = rule.use(load, found - 1)
        assert fewer > rule.target * (1 - TOLERANCE) - 1e-6


@given(rules, st.floats(1, 1e5), st.lists(st.floats(-0.04, 0.04), max_size=80))
def test_noise_within_the_tolerance_changes_nothing(
    rule: ScalingRule, load: float, noise: list[float]
) -> None:
    count = round(load / (rule.per_worker * rule.target))
    if not rule.minimum <= count <= rule.maximum:
        return
    exact = count * rule.per_worker * rule.target
    assert set(play(rule, [exact * (1 + part) for part in noise], count)) <= {count}
