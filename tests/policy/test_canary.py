"""Test the verdict on a canary against simple models, and its words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.errors import SpecError
from trio_supervisor.policy.canary import (
    ERRORS,
    EXITS,
    LATE,
    MEMORY_MARGIN,
    RESTARTS,
    CanaryTrial,
    ObservedService,
    ObservedWorker,
    binomial_tail,
    canary_trial,
    error_count,
    judge,
)

MIB = 1024 * 1024
SECONDS = 60.0


def worker(name: str = "web.0", **fields: Any) -> ObservedWorker:
    return ObservedWorker(name=name, **fields)


def sizes(first: float, per_second: float = 0.0) -> tuple[tuple[float, int], ...]:
    """Return the memory of a minute: *first* MiB, and its growth."""
    return tuple(
        (float(time), round((first + per_second * time) * MIB))
        for time in range(int(SECONDS) + 1)
    )


def verdict(
    canary: ObservedWorker | Sequence[ObservedWorker],
    others: Sequence[ObservedWorker] = (),
    elapsed: float = SECONDS,
) -> str:
    """Judge after *elapsed* seconds of a minute, by default beside good workers."""
    canaries = [canary] if isinstance(canary, ObservedWorker) else canary
    service = ObservedService(
        canaries=canaries,
        others=others or [worker(f"web.{index}") for index in range(4)],
        elapsed=elapsed,
        seconds=SECONDS,
    )
    return judge(service)


counts = st.integers(0, 12)
workers = st.builds(
    ObservedWorker,
    name=st.just("web.0"),
    exits=counts,
    restarts=counts,
    is_ready=st.booleans(),
    errors=st.none() | st.integers(0, 400).map(float),
    sizes=st.builds(sizes, st.integers(10, 300), st.sampled_from([0, 0.1, 1, 5])),
    lags=st.lists(st.sampled_from([0.0, 0.05, 0.2, 3.0]), max_size=20).map(tuple),
)
fleets = st.lists(workers, min_size=1, max_size=8)
times = st.floats(0, SECONDS) | st.just(SECONDS)


@given(workers, st.integers(1, 5), st.integers(1, 8), times)
def test_canaries_like_all_old_workers_pass(
    one: ObservedWorker, new: int, old: int, elapsed: float
) -> None:
    """Whatever happens to all of them alike is not the fault of the release."""
    assert verdict([one] * new, [one] * old, elapsed) == ""


@given(fleets, times)
def test_canary_without_trouble_passes(
    others: list[ObservedWorker], elapsed: float
) -> None:
    assert verdict(worker(), others, elapsed) == ""


@given(fleets, fleets, st.integers(0, 20), times)
def test_exits_of_old_workers_never_make_a_canary_fail(
    canaries: list[ObservedWorker],
    others: list[ObservedWorker],
    more: int,
    elapsed: float,
) -> None:
    worse = [evolve(others[0], exits=others[0].exits + more), *others[1:]]
    if not verdict(canaries, others, elapsed):
        assert not verdict(canaries, worse, elapsed)


@given(fleets, fleets, times)
def test_better_canaries_pass_if_worse_ones_do(
    canaries: list[ObservedWorker], others: list[ObservedWorker], elapsed: float
) -> None:
    better = [
        evolve(each, exits=each.exits // 2, restarts=0, is_ready=True, lags=())
        for each in canaries
    ]
    if not verdict(canaries, others, elapsed):
        assert not verdict(better, others, elapsed)


@given(fleets, fleets, times)
def test_failure_names_a_canary(
    canaries: list[ObservedWorker], others: list[ObservedWorker], elapsed: float
) -> None:
    named = [evolve(each, name=f"new.{i}") for i, each in enumerate(canaries)]
    if text := verdict(named, others, elapsed):
        assert any(f"{each.name} of the new generation" in text for each in named)


@given(fleets, fleets, st.floats(0, SECONDS, exclude_max=True))
def test_few_exits_wait_for_the_end(
    canaries: list[ObservedWorker], others: list[ObservedWorker], elapsed: float
) -> None:
    """As do restarts, readiness and event loops."""
    calm = [evolve(each, exits=0, errors=None, sizes=()) for each in canaries]
    calm[0] = evolve(calm[0], exits=EXITS - 1)
    assert verdict(calm, others, elapsed) == ""


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 9), st.integers(1, 9))
def test_binomial_tail_is_exact(least: int, more: int, part: int, rest: int) -> None:
    count, share = least + more, Fraction(part, part + rest)
    exact = sum(
        math.comb(count, k) * share**k * (1 - share) ** (count - k)
        for k in range(least, count + 1)
    )
    assert binomial_tail(least, count, float(share)) == pytest.approx(float(exact))


@given(st.integers(0, 999), st.integers(1, 9))
def test_binomial_tail_of_many_is_nearly_exact(least: int, rest: int) -> None:
    share = 1 / (1 + rest)
    exact, near = (binomial_tail(least, count, share) for count in (1000, 1001))
    assert near == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize(
    ("exits", "others", "elapsed", "fails"),
    [
        (1, [0], SECONDS, True),
        (1, [0], SECONDS / 2, False),
        (EXITS, [0], 20.0, True),
        # A request that crashes each worker that gets it.
        (1, [1], SECONDS, False),
        (1, [1, 0, 0, 0], SECONDS, False),
        (2, [1, 1, 0, 0], SECONDS, False),
        (3, [1, 0, 0, 0], SECONDS, True),
        (9, [8], SECONDS, False),
        (30, [2], SECONDS, True),
        (0, [5], SECONDS, False),
    ],
)
def test_exits_are_compared(
    exits: int, others: list[int], elapsed: float, fails: bool
) -> None:
    old = [worker(exits=each) for each in others]
    assert bool(verdict(worker(exits=exits), old, elapsed)) is fails


@pytest.mark.parametrize(
    ("memory", "per_second", "old", "old_per_second", "fails"),
    [
        (80, 0, 80, 0, False),
        (140, 0, 80, 0, False),
        (150, 0, 80, 0, True),
        # Half as much again of a large worker.
        (1400, 0, 1000, 0, False),
        (1600, 0, 1000, 0, True),
        (80, 1, 80, 0, True),
        (80, 0.2, 80, 0, False),
        # It fills a cache, as the old workers did.
        (80, 1, 200, 0, False),
        (80, 1, 80, 1, False),
        (80, 1, 79, 0.6, False),
    ],
)
def test_memory_is_compared(
    memory: float, per_second: float, old: float, old_per_second: float, fails: bool
) -> None:
    canary = worker(sizes=sizes(memory, per_second))
    others = [worker(sizes=sizes(old, old_per_second)), worker(sizes=sizes(60))]
    assert bool(verdict(canary, others)) is fails


def test_memory_of_a_moment_is_no_reason() -> None:
    """But that of ten seconds is, before the end."""
    high = [(time, size + 2 * MEMORY_MARGIN) for time, size in sizes(50)]
    others = [worker(sizes=sizes(50)[:31])]
    moment = (*sizes(50)[:25], *high[25:31])
    assert verdict(worker(sizes=moment), others, 30.0) == ""
    lasting = (*sizes(50)[:20], *high[20:31])
    assert verdict(worker(sizes=lasting), others, 30.0)
    assert verdict(worker(sizes=tuple(high[25:31])), others, 30.0) == "", "restarted"


def test_memory_that_no_old_worker_shows_is_not_compared() -> None:
    assert verdict(worker(sizes=sizes(500, 5)), [worker()]) == ""


@pytest.mark.parametrize(
    ("lags", "others", "fails"),
    [
        ([0.3, 0.0, 0.0], [0.0, 0.0], True),
        ([0.3, 0.0, 0.0, 0.0], [0.0, 0.0], False),
        ([LATE] * 4, [0.0], False),
        ([0.3] * 4, [0.3, 0.0], False),
        ([0.3] * 4, [0.3, 0.0, 0.0], True),
        ([0.3] * 4, [], False),
    ],
)
def test_event_loops_are_compared(
    lags: list[float], others: list[float], fails: bool
) -> None:
    old = [worker(lags=tuple(others))]
    assert bool(verdict(worker(lags=tuple(lags)), old)) is fails


@pytest.mark.parametrize(
    ("errors", "others", "fails"),
    [
        (ERRORS - 1, [0.0, 0.0], False),
        (ERRORS, [0.0, 0.0], True),
        (100, [90.0, 80.0], False),
        (100, [20.0, 30.0], True),
        (100, [None, None], False),
        (5000, [1000.0, 1000.0], True),
        (None, [0.0], False),
    ],
)
def test_errors_are_compared(
    errors: float | None, others: list[float | None], fails: bool
) -> None:
    old = [worker(errors=each) for each in others]
    assert bool(verdict(worker(errors=errors), old, 20.0)) is fails


@pytest.mark.parametrize(
    ("canary", "elapsed", "text"),
    [
        (
            worker("web.2", exits=3, last_exit="exit code 1"),
            20.0,
            "web.2 of the new generation exited 3 times in 20 s (exit code 1); no "
            "worker of the old one did",
        ),
        (
            worker("web.2", exits=1, last_exit="killed by SIGSEGV"),
            SECONDS,
            "web.2 of the new generation exited once in 60 s (killed by SIGSEGV); no "
            "worker of the old one did",
        ),
        (
            worker("web.2", is_down=True, exits=1, last_exit="exit code 1"),
            1.0,
            "web.2 of the new generation exited and is not restarted: exit code 1",
        ),
        (
            worker("web.2", restarts=RESTARTS, restart_reason="memory"),
            SECONDS,
            "web.2 of the new generation was restarted 2 times in 60 s (memory); no "
            "worker of the old one was",
        ),
        (
            worker("web.2", is_ready=False, trouble="unready"),
            SECONDS,
            "web.2 of the new generation is not ready after 60 s (unready)",
        ),
        (
            worker("web.2", errors=40.0),
            20.0,
            "web.2 of the new generation counted 40 errors in 20 s; a worker of the "
            "old one counted 2.0 on average",
        ),
        (
            worker("web.2", sizes=sizes(300)),
            SECONDS,
            "web.2 of the new generation uses 300.0 MiB of memory after 60 s; the "
            "largest of the old one uses 50.0 MiB",
        ),
        (
            worker("web.2", sizes=sizes(50, 1)),
            SECONDS,
            "web.2 of the new generation grew steadily by 60.0 MiB per minute to "
            "110.0 MiB; no worker of the old one grew half as fast",
        ),
        (
            worker("web.2", lags=(0.3, 0.3, 0.0, 0.0)),
            SECONDS,
            "the event loop of web.2 of the new generation was late by more than "
            "0.1 s for 50% of the time; those of the old one for 0%",
        ),
    ],
    ids=[
        "exits",
        "exit",
        "down",
        "restarts",
        "ready",
        "errors",
        "size",
        "growth",
        "lag",
    ],
)
def test_reason_is_in_words(canary: ObservedWorker, elapsed: float, text: str) -> None:
    old = worker(sizes=sizes(50), errors=2.0, lags=(0.0,))
    assert verdict(canary, [old, old], elapsed) == text


def test_reason_compares_with_the_old_workers() -> None:
    canary = worker("web.2", exits=9)
    assert verdict(canary, [worker(exits=1)]).endswith(
        "exited 9 times in 60 s; the worker of the old one did once"
    )
    assert verdict(canary, [worker(exits=1)] * 3).endswith(
        "; the 3 workers of the old one did 3 times together"
    )


def test_canary_is_excused_if_an_old_worker_is_not_ready_either() -> None:
    canary = worker(is_ready=False)
    assert verdict(canary, [worker(), worker(is_ready=False)]) == ""


def test_errors_are_those_of_counters_named_so() -> None:
    totals = {
        ("counter", "errors_total", ("a",), ""): 1.0,
        ("counter", "errors_total", ("b",), ""): 2.0,
        ("counter", "mail_failures_total", (), ""): 4.0,
        ("counter", "http_requests_total", ("GET", "5xx"), ""): 8.0,
        ("counter", "http_requests_total", ("GET", "4xx"), ""): 16.0,
        ("gauge", "last_errors_total", (), ""): 32.0,
    }
    assert error_count(totals) == 15.0
    assert error_count({("counter", "requests_total", (), ""): 1.0}) is None


def test_trial_has_a_default_length() -> None:
    assert canary_trial(None, None) is None
    assert canary_trial(2, None) == CanaryTrial(workers=2, seconds=60.0)
    assert canary_trial(1, 5) == CanaryTrial(workers=1, seconds=5.0)


@pytest.mark.parametrize(
    ("workers", "seconds", "problem"),
    [
        (0, 60, "canary: expected a number of workers, 1 or more, got 0"),
        (-1, 60, "canary: expected"),
        (True, 60, "canary: expected"),
        (1.0, 60, "canary: expected"),
        (1, 0, "canary_for: expected more than 0 and at most 86400 s, got 0"),
        (1, -1, "canary_for: expected"),
        (1, math.nan, "canary_for: expected"),
        (1, math.inf, "canary_for: expected"),
        (1, 86_401, "canary_for: expected"),
        (1, "60", "canary_for: expected"),
        (None, 60, "canary_for: has no effect without canary"),
    ],
)
def test_bad_numbers_are_refused(workers: Any, seconds: Any, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        canary_trial(workers, seconds)
    assert str(caught.value).startswith(problem)


def test_canary_of_a_dry_run_is_refused() -> None:
    with pytest.raises(SpecError, match="canary: cannot be combined with dry_run"):
        canary_trial(1, None, dry_run=True)
