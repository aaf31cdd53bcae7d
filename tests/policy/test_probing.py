"""Test the thresholds of a probe against an oracle."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.policy.probing import ProbeCounter, ProbeHealth, quick_pauses

GOOD, BAD = True, False
UNKNOWN, HEALTHY, UNHEALTHY = ProbeHealth


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(ProbeHealth),
    st.lists(st.booleans(), max_size=30),
)
def test_counter_agrees_with_the_last_outcomes(
    failures: int, successes: int, begin: ProbeHealth, outcomes: list[bool]
) -> None:
    """Each change is returned once."""
    counter, health = ProbeCounter(failures, successes, begin), begin
    for end in range(1, len(outcomes) + 1):
        told = counter.add(outcomes[end - 1])
        before = health
        if end >= successes and all(outcomes[end - successes : end]):
            health = HEALTHY
        if end >= failures and not any(outcomes[end - failures : end]):
            health = UNHEALTHY
        assert counter.health is health
        assert told is (health if health is not before else None)


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [
        pytest.param([BAD, BAD, BAD], [None, None, UNHEALTHY], id="never came up"),
        pytest.param([BAD, BAD, GOOD], [None, None, HEALTHY], id="came up in time"),
        pytest.param([GOOD, GOOD], [HEALTHY, None], id="said once"),
        pytest.param([GOOD, BAD, BAD, GOOD, BAD], [HEALTHY, *4 * [None]], id="flaky"),
    ],
)
def test_default_counter_needs_three_failures_or_one_success(
    outcomes: list[bool], told: list[ProbeHealth | None]
) -> None:
    counter = ProbeCounter()
    assert [counter.add(outcome) for outcome in outcomes] == told


def test_threshold_below_one_is_rejected() -> None:
    """It would be reached before the first attempt."""
    with pytest.raises(ValueError, match="failures"):
        ProbeCounter(failures=0)
    with pytest.raises(ValueError, match="successes"):
        ProbeCounter(successes=0)


@given(st.floats(0.01, 100))
def test_startup_is_asked_often_at_first(interval: float) -> None:
    pauses = list(islice(quick_pauses(interval), 40))
    assert pauses[0] == min(0.1, interval)
    assert pauses == sorted(pauses)
    assert pauses[-1] == interval
