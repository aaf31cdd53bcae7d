"""After how many requests a worker is replaced."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.contrib.request_limit import default_jitter, request_limit


@pytest.mark.parametrize(("most", "jitter"), [(1, 0), (9, 0), (10, 1), (1000, 100)])
def test_default_jitter_is_a_tenth(most: int, jitter: int) -> None:
    assert default_jitter(most) == jitter


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_limit_is_at_most_the_jitter_more(most: int, jitter: int, u: float) -> None:
    assert most <= request_limit(most, jitter, u) <= most + jitter


def test_limit_reaches_both_ends() -> None:
    assert request_limit(100, 10, 0.0) == 100
    assert request_limit(100, 10, math.nextafter(1.0, 0.0)) == 110
