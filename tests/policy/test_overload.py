"""Test timeouts under load against an oracle that counts ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_supervisor.policy.overload import (
    HOLD,
    LATE,
    MOST,
    STAGGER,
    STAGGER_PRESSED,
    Pressure,
    ResponseGap,
    Triage,
    is_certain,
    time_left,
)

Tick = Literal["ran", "queued", "we slept"]
TICK = 0.125
"""A power of two: sums are exact [s]."""


def silence_of(ticks: Sequence[Tick]) -> ResponseGap:
    return ResponseGap(
        elapsed=len(ticks) * TICK,
        ours=ticks.count("we slept") * TICK,
        queued=ticks.count("queued") * TICK,
    )


ticks = st.lists(
    st.sampled_from(["ran", "queued", "queued", "queued", "we slept", "we slept"]),
    max_size=200,
)


@given(ticks, st.integers(1, 16))
@example(["queued"] * round(MOST), 1)
def test_worker_is_overdue_when_counted_time_is_used_up(
    ticks: Sequence[Tick], allowed: int
) -> None:
    """The oracle counts the ticks one by one."""
    own, watched, is_overdue = 0, 0, False
    for tick in ticks:
        own += tick == "ran"
        watched += tick != "we slept"
        is_overdue = is_overdue or own >= allowed or watched >= MOST * allowed
    left = time_left(silence_of(ticks), allowed * TICK)
    assert (left == 0) == is_overdue
    assert is_certain(silence_of(ticks), allowed * TICK) == (watched >= MOST * allowed)


@given(ticks, st.integers(1, 16))
def test_time_left_is_exact_for_a_running_worker(
    ticks: Sequence[Tick], allowed: int
) -> None:
    """A worker that runs from now on is overdue then, and not a tick before."""
    timeout = allowed * TICK
    left = time_left(silence_of(ticks), timeout)
    more: list[Tick] = ["ran"] * round(left / TICK)
    assert time_left(silence_of([*ticks, *more]), timeout) == 0
    if more:
        assert time_left(silence_of([*ticks, *more[1:]]), timeout) > 0


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0.001, 1e4))
def test_inconsistent_times_are_accepted(
    elapsed: float, ours: float, queued: float, timeout: float
) -> None:
    """Threads wait concurrently, so that their sum may exceed the elapsed time."""
    silence = ResponseGap(elapsed=elapsed, ours=ours, queued=queued)
    assert 0 <= silence.counted <= silence.watched <= elapsed
    assert 0 <= time_left(silence, timeout) <= timeout * MOST


def test_stopped_worker_is_overdue_after_its_timeout() -> None:
    """After SIGSTOP a process does not wait for a processor."""
    assert time_left(ResponseGap(elapsed=6.0), 6.0) == 0


def test_time_of_a_suspended_host_does_not_count() -> None:
    assert time_left(ResponseGap(elapsed=86_400.0, ours=86_399.0), 6.0) == 5.0


@pytest.mark.parametrize(
    ("pressure", "words"),
    [
        (Pressure(cpu=59.0, memory=9.0, io=39.0, lateness=0.09, queued=0.24), ()),
        (Pressure(cpu=98.4), ("cpu pressure 98%",)),
        (Pressure(memory=12.0), ("memory pressure 12%",)),
        (Pressure(io=77.0), ("io pressure 77%",)),
        (Pressure(lateness=0.5), ("event loop late 50% of the time",)),
        (Pressure(queued=0.9), ("waiting for a processor 90% of the time",)),
    ],
)
def test_pressure_causes_are_described(
    pressure: Pressure, words: tuple[str, ...]
) -> None:
    assert pressure.causes == words
    assert pressure.is_high == bool(words)


@pytest.mark.parametrize(
    ("late", "watched", "is_pressed", "is_overloaded"),
    [
        (100, 100, True, True),
        (51, 100, True, True),
        (50, 100, True, False),
        (100, 100, False, False),
        (3, 3, True, True),
        (2, 2, True, False),
        (1, 1, True, False),
        (0, 0, True, False),
    ],
)
def test_overload_needs_most_workers_late_and_pressure(
    late: int, watched: int, is_pressed: bool, is_overloaded: bool
) -> None:
    triage = Triage()
    changed = triage.review(late=late, watched=watched, is_pressed=is_pressed)
    assert changed == is_overloaded == triage.is_overloaded
    assert not triage.review(late=late, watched=watched, is_pressed=is_pressed)
    assert triage.review(late=0, watched=100, is_pressed=True) == is_overloaded


questions = st.lists(
    st.tuples(
        st.floats(0, 2),  # time until it is asked
        st.booleans(),  # pressure
        st.booleans(),  # certainty
        st.integers(0, 10),  # late ones of 10
    ),
    max_size=50,
)


@given(questions)
def test_workers_are_stopped_one_by_one_but_not_in_an_overload(
    questions: Sequence[tuple[float, bool, bool, int]],
) -> None:
    triage, now, stopped_at = Triage(), 0.0, -math.inf
    for pause, is_pressed, is_sure, late in questions:
        now += pause
        triage.review(late=late, watched=10, is_pressed=is_pressed)
        wait = triage.wait(now, is_pressed=is_pressed, is_certain=is_sure)
        is_spared = late > 5 and is_pressed and not is_sure
        apart = STAGGER_PRESSED if is_pressed else STAGGER
        if is_spared:
            assert wait == HOLD
        elif stopped_at + apart - now > 0:
            assert wait == stopped_at + apart - now
        else:
            assert wait == 0
            stopped_at = now


def test_late_worker_has_missed_a_heartbeat() -> None:
    """Three heartbeats are due within the timeout."""
    assert 1 / 3 < LATE < 2 / 3
