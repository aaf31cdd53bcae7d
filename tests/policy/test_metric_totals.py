"""Totals over crashes, by what processes may write at any moment."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.policy.metric_totals import ProcessNumbers, Totals, added
from trio_supervisor.policy.metrics import Counter, Gauge, Histogram, Metrics

METRICS = Metrics(
    requests_total=Counter(), active=Gauge(), seconds=Histogram(buckets=[1, 2])
)
COUNTERS = [0, 2, 3, 4, 5]
"""Places of numbers that only grow."""

number = st.floats(allow_nan=True, allow_infinity=True)
memories = st.lists(
    st.lists(number, min_size=METRICS.slots, max_size=METRICS.slots), max_size=6
)


def counters(totals: Totals) -> dict[object, float]:
    return {key: value for key, value in totals.items() if key[0] != "gauge"}


@given(processes=st.lists(memories, min_size=1, max_size=4))
def test_totals_never_go_back(processes: list[list[list[float]]]) -> None:
    """Whatever each process writes, at any byte of an update, and when it exits."""
    kept: Totals = {}
    before: dict[object, float] = {}
    for memory in processes:
        process = ProcessNumbers(METRICS)
        for numbers in memory:
            process.update(numbers)
            now = counters(added([kept, process.totals()]))
            assert all(now[key] >= value for key, value in before.items())
            assert all(math.isfinite(value) for value in process.totals().values())
            before = now
        kept = added([kept, process.totals(with_gauges=False)])


def test_each_process_counts_once() -> None:
    kept: Totals = {}
    for _ in range(3):
        process = ProcessNumbers(METRICS)
        process.update([5.0, 7.0, 1.0, 2.0, 0.0, 3.5])
        kept = added([kept, process.totals(with_gauges=False)])
    assert kept == {
        ("counter", "requests_total", (), ""): 15.0,
        ("histogram", "seconds", (), "1.0"): 3.0,
        ("histogram", "seconds", (), "2.0"): 6.0,
        ("histogram", "seconds", (), "+Inf"): 0.0,
        ("histogram", "seconds", (), "sum"): 10.5,
    }


def test_a_gauge_shrinks() -> None:
    process = ProcessNumbers(METRICS)
    process.update([0.0, 7.0])
    process.update([0.0, -3.0])
    assert process.totals()["gauge", "active", (), ""] == -3.0
