"""Test when scheduled runs are due, however the clock jumps."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.policy.run_times import DueTime, RunTimes, check_cron, zone_of

VIENNA = zone_of("Europe/Vienna")
START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
HOUR, DAY = 3600.0, 86_400.0


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def due(times: RunTimes, now: float = START, *, catches_up: bool = True) -> DueTime:
    return DueTime(times, times.after(now), catches_up)


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("0 3 * * *", "2026-01-01T03:00:00+01:00", "2026-01-02T03:00:00+01:00"),
        ("@daily", "2026-01-01T12:00:00+01:00", "2026-01-02T00:00:00+01:00"),
        ("*/20 * * * *", "2026-01-01T03:01:00+01:00", "2026-01-01T03:20:00+01:00"),
        # 02:30 does not exist on this day: it runs once, just after.
        ("30 2 * * *", "2026-03-28T12:00:00+01:00", "2026-03-29T03:00:00+02:00"),
        # And twice on this one: it runs at the first.
        ("30 2 * * *", "2026-10-24T12:00:00+02:00", "2026-10-25T02:30:00+02:00"),
    ],
)
def test_crontab_follows_debians_rules(cron: str, after: str, expected: str) -> None:
    times = RunTimes(cron=cron, zone=VIENNA)

    assert times.after(at(after)) == at(expected)


def test_hour_that_comes_twice_has_one_run() -> None:
    times = RunTimes(cron="30 2 * * *", zone=VIENNA)

    first = times.after(at("2026-10-24T12:00:00+02:00"))

    assert times.after(first) == at("2026-10-26T02:30:00+01:00")


@pytest.mark.parametrize("cron", ["", "x", "* * * *", "61 * * * *", "0 0 30 2 *"])
def test_impossible_crontab_is_refused(cron: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_cron(cron)


def test_run_is_due_once_at_each_moment() -> None:
    line = due(RunTimes(every=60))

    seen = [line.look(START + second) for second in range(0, 181, 10)]

    assert [n * 10 for n, verdict in enumerate(seen) if verdict == "run"] == [
        60,
        120,
        180,
    ]


def test_interval_keeps_its_phase_when_looked_at_late() -> None:
    line = due(RunTimes(every=60))

    assert line.look(START + 65) == "run"
    assert line.at == START + 120


def test_missed_runs_are_made_up_for_by_one() -> None:
    line = due(RunTimes(every=60))

    assert [line.look(START + DAY), line.look(START + DAY + 1)] == ["run", "wait"]


def test_missed_runs_are_left_out_on_request() -> None:
    line = due(RunTimes(cron="0 3 * * *"), catches_up=False)

    assert line.look(START + 4 * HOUR) == "missed"
    assert line.look(START + DAY + 3 * HOUR) == "run"


def test_clock_set_back_an_hour_repeats_no_run() -> None:
    line = due(RunTimes(cron="0 3 * * *"))
    assert line.look(START + 3 * HOUR) == "run"

    looks = [line.look(START + 2 * HOUR + minute * 60) for minute in range(120)]

    assert set(looks) == {"wait"}


def test_corrected_clock_counts_from_its_new_time() -> None:
    line = due(RunTimes(cron="0 3 * * *"), START + 400 * DAY)
    line.look(START + 400 * DAY)

    assert line.look(START) == "wait"
    assert line.look(START + 3 * HOUR) == "run"


def test_interval_does_not_wait_longer_than_itself_after_a_correction() -> None:
    line = due(RunTimes(every=60), START + 400 * DAY)
    line.look(START + 400 * DAY)

    assert line.look(START) == "wait"
    assert line.at == START + 60


def test_jitter_delays_the_next_run_only() -> None:
    line = due(RunTimes(every=60))

    assert line.look(START + 60, delay=5) == "run"
    assert line.starts_at == START + 125
    assert line.look(START + 124) == "wait"
    assert line.look(START + 125) == "run"
    assert line.starts_at == START + 180


times = st.one_of(
    st.floats(1, 100_000).map(lambda every: RunTimes(every=every)),
    st.sampled_from(["* * * * *", "0 3 * * *", "*/7 1-5 * * 1", "30 2 1 * *"]).map(
        lambda cron: RunTimes(cron=cron, zone=VIENNA)
    ),
)


@given(times, st.lists(st.floats(0.1, 200_000), min_size=1, max_size=60))
def test_forward_clock_loses_and_doubles_no_run(
    times: RunTimes, steps: list[float]
) -> None:
    """Between two looks there is one run if, and only if, a moment has passed."""
    line, now = due(times), START
    line.look(now)
    for step in steps:
        before, now = now, now + step
        was_due = line.at
        verdict = line.look(now)
        assert (verdict == "run") == (was_due <= now)
        assert line.at > now
        if times.every is None:
            assert (verdict == "run") == (times.after(before) <= now)


@given(times, st.lists(st.floats(-300_000, 300_000), min_size=1, max_size=60))
def test_jumping_clock_never_stops_a_schedule(
    times: RunTimes, jumps: list[float]
) -> None:
    """The next moment is never further away than it would be from now, but for the
    hours in which a clock that was set back shows what it has shown already."""
    line, now = due(times), START
    line.look(now)
    for jump in jumps:
        now = max(now + jump, 0.0)
        line.look(now)
        assert now < line.at
        assert line.at <= times.after(now + 3 * HOUR + 1)


@given(times)
def test_moments_ascend(times: RunTimes) -> None:
    moments = [START]
    for _ in range(5):
        moments.append(times.after(moments[-1]))
    assert all(a < b for a, b in pairwise(moments))
