"""How the time for a stop is divided."""

from __future__ import annotations

import pytest

from trio_supervisor.contrib.drain_times import DrainTimes


@pytest.mark.parametrize(
    ("stop_timeout", "linger", "grace"), [(0, 0, 0), (1, 0.2, 0.5), (30, 1, 20)]
)
def test_drain_ends_before_the_worker_is_cancelled(
    stop_timeout: float, linger: float, grace: float
) -> None:
    """It is cancelled after four fifths of its stop_timeout."""
    times = DrainTimes.within(stop_timeout)
    assert (times.linger, times.grace) == pytest.approx((linger, grace))
