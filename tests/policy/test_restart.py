"""Test restart decisions against an oracle that keeps the whole history."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_supervisor.policy.restart import (
    Backoff,
    Cause,
    Decision,
    Ending,
    GiveUp,
    Leave,
    RestartAfter,
    RestartHistory,
    RestartPolicy,
    RestartRules,
    lifetime,
)

ALWAYS, ON_FAILURE, NEVER = RestartPolicy
CRASH = Ending(cause=Cause.EXIT, returncode=1)
PLAIN = RestartRules(backoff=None, intensity=None)
REPLACED = {
    Cause.RESTART,
    Cause.LIFETIME,
    Cause.MONITOR,
    Cause.WORKER,
    Cause.GROUP,
}
ENDED = {Cause.STOP, Cause.SCALE, Cause.RELOAD, Cause.IDLE}

# Quarters of a second add up exactly: both ends of the window can be hit.
quarters = st.integers(0, 80).map(lambda n: n / 4)
jitters = st.floats(0, 1, exclude_max=True)
endings = st.builds(
    Ending,
    cause=st.sampled_from([cause for cause in Cause if cause is not Cause.SHORTAGE]),
    returncode=st.sampled_from([None, 0, 1, 137, -9, -15]),
    ready_for=st.none() | st.sampled_from([0.0, 9.75, 10.0, 11.0, 1e6]),
)
rules = st.builds(
    RestartRules,
    policy=st.sampled_from(RestartPolicy),
    backoff=st.none()
    | st.builds(
        Backoff,
        base=st.sampled_from([0.05, 0.5, 3]),
        cap=st.sampled_from([0.5, 8.0, 60]),
        stable_after=st.sampled_from([0.0, 10, 11.0, 1e9]),
    ),
    intensity=st.none() | st.integers(0, 4),
    period=st.sampled_from([0.25, 5, 20.0, math.inf]),
    success=st.sampled_from([frozenset({0}), frozenset({0, 137}), frozenset({1})]),
    give_up_on=st.sampled_from([frozenset(), frozenset({1, -9}), frozenset({0})]),
)
Story: TypeAlias = list[tuple[float, Ending, float]]
"""Time since the last ending [s], the ending, and the jitter."""
stories: st.SearchStrategy[Story] = st.lists(
    st.tuples(quarters, endings, jitters), max_size=30
)


class Oracle:
    """Decides from the whole history each time."""

    def __init__(self, rules: RestartRules) -> None:
        self.rules = rules
        self.past: list[tuple[float, Ending, Decision]] = []
        self.told: list[float] = []
        self.forgiven = 0
        """Number of endings that no longer count towards the restart limit."""
        self.began = 0
        """Index at which the history of the backoff begins."""

    def decide(self, ending: Ending, now: float, u: float) -> Decision:
        decision = self._decide(ending, now, u)
        self.past.append((now, ending, decision))
        return decision

    def _decide(self, ending: Ending, now: float, u: float) -> Decision:
        if ending.cause in REPLACED:
            return RestartAfter(0.0)
        if ending.cause is Cause.NO_CODE:
            return RestartAfter(2.0 * (1 + u) / 2)
        if ending.cause in ENDED or not self._is_wanted(ending):
            return Leave()
        crashes = self._crashes(self.forgiven, is_limited=True)
        recent = [t for t in crashes if now - t <= self.rules.period]
        delay = self._delay(ending, u)
        if self.rules.intensity is not None and len(recent) >= self.rules.intensity:
            return GiveUp(len(recent), self.rules.period, delay=delay)
        return RestartAfter(delay)

    def _delay(self, ending: Ending, u: float) -> float:
        backoff, in_a_row = self.rules.backoff, self.in_a_row(ending)
        if backoff is None or in_a_row == 0:
            return 0.0
        return u * min(backoff.cap, backoff.base * 2.0 ** (in_a_row - 1))

    def _is_wanted(self, ending: Ending) -> bool:
        by_itself = ending.cause is Cause.EXIT
        if by_itself and ending.returncode in self.rules.give_up_on:
            return False
        failed = not by_itself or ending.returncode not in self.rules.success
        return {ALWAYS: True, ON_FAILURE: failed, NEVER: False}[self.rules.policy]

    def _crashes(self, first: int, *, is_limited: bool = False) -> list[float]:
        others = {*REPLACED, Cause.NO_CODE} if is_limited else REPLACED
        return [
            now
            for now, ending, decision in self.past[first:]
            if not isinstance(decision, Leave) and ending.cause not in others
        ]

    def in_a_row(self, ending: Ending | None = None) -> int:
        """Return the crashes since the last stable run, without *ending* itself."""
        backoff = self.rules.backoff
        stable_after = 10.0 if backoff is None else backoff.stable_after

        def was_stable(ending: Ending) -> bool:
            return ending.ready_for is not None and ending.ready_for >= stable_after

        if ending is not None and was_stable(ending):
            return 0
        stable = [i for i, (_, e, _) in enumerate(self.past) if was_stable(e)]
        # A stable run counts from its own end on: that may have been a crash.
        return len(self._crashes(max([self.began, *stable])))

    def is_told(self, now: float) -> bool:
        is_told = self.in_a_row() in {*range(6), *(2**n for n in range(20))} or all(
            now - moment >= 600 for moment in [0.0, *self.told]
        )
        self.told += [now] * is_told
        return is_told


@given(rules, stories, st.data())
def test_history_agrees_with_the_oracle(
    rules: RestartRules, story: Story, data: st.DataObject
) -> None:
    """For any endings and rules, including resets by groups and operators."""
    history, oracle, now = RestartHistory(), Oracle(rules), 0.0
    for dt, told, u in story:
        now += dt * data.draw(st.sampled_from([1, 1, 100]), label="pace")
        ending = rules.ending(told.cause, told.returncode, told.ready_for)
        decision = history.decide(rules, ending, now=now, u=u)
        expected = oracle.decide(ending, now, u)
        assert decision == expected
        if isinstance(decision, GiveUp) and isinstance(expected, GiveUp):
            assert decision.delay == expected.delay
        assert history.attempt == oracle.in_a_row()
        assert history.should_report(now) == oracle.is_told(now)
        if data.draw(st.booleans(), label="its group is restarted"):
            history.reset_limit()
            oracle.forgiven = len(oracle.past)
        if data.draw(st.sampled_from([False, False, True]), label="by hand"):
            history.end_crash_loop()
            oracle.began = len(oracle.past)


@given(rules, stories, st.data())
def test_planned_endings_change_no_other_decision(
    rules: RestartRules, story: Story, data: st.DataObject
) -> None:
    """Interleaved planned restarts do not change the other decisions."""
    planned = Ending(
        cause=data.draw(st.sampled_from(sorted(REPLACED, key=str))),
        returncode=data.draw(st.integers(-15, 1)),
    )
    plain, strewn, now = RestartHistory(), RestartHistory(), 0.0
    for dt, ending, u in story:
        now += dt
        for _ in range(data.draw(st.integers(0, 3), label="planned restarts")):
            assert strewn.decide(rules, planned, now=now, u=u) == RestartAfter(0.0)
        expected = plain.decide(rules, ending, now=now, u=u)
        assert strewn.decide(rules, ending, now=now, u=u) == expected


# What follows each ending under always, on-failure and never.
TABLE = [
    (Cause.EXIT, 0, (True, False, False)),
    (Cause.EXIT, 1, (True, True, False)),
    (Cause.EXIT, -9, (True, True, False)),
    (Cause.SPAWN, None, (True, True, False)),
    (Cause.NO_CODE, None, (True, True, True)),
    (Cause.STARTUP_TIMEOUT, 0, (True, True, False)),
    (Cause.STARTUP_TIMEOUT, -15, (True, True, False)),
    (Cause.UNHEALTHY, 0, (True, True, False)),
    (Cause.UNHEALTHY, -9, (True, True, False)),
    (Cause.RESTART, 0, (True, True, True)),
    (Cause.RESTART, -9, (True, True, True)),
    (Cause.STOP, 0, (False, False, False)),
    (Cause.STOP, -9, (False, False, False)),
    (Cause.SCALE, -15, (False, False, False)),
    (Cause.IDLE, 0, (False, False, False)),
    (Cause.RELOAD, -15, (False, False, False)),
    (Cause.LIFETIME, 0, (True, True, True)),
    (Cause.MONITOR, -15, (True, True, True)),
    (Cause.WORKER, 0, (True, True, True)),
    (Cause.GROUP, 1, (True, True, True)),
]


@pytest.mark.parametrize(("cause", "returncode", "is_restarted"), TABLE)
def test_decision_agrees_with_the_table(
    cause: Cause, returncode: int | None, is_restarted: tuple[bool, bool, bool]
) -> None:
    ending = Ending(cause=cause, returncode=returncode)
    for policy, expected in zip(RestartPolicy, is_restarted, strict=True):
        rules = RestartRules(policy=policy)
        decision = RestartHistory().decide(rules, ending, now=0.0, u=0.5)
        delay = 1.5 if cause is Cause.NO_CODE else 0.0
        assert decision == (RestartAfter(delay) if expected else Leave()), policy


def test_table_has_every_cause() -> None:
    """Add a row for a new cause."""
    assert {cause for cause, _, _ in TABLE} == set(Cause) - {Cause.SHORTAGE}


@given(rules, stories, st.data())
def test_shortages_change_no_other_decision(
    rules: RestartRules, story: Story, data: st.DataObject
) -> None:
    """A start that failed for lack of resources is retried soon."""
    history, untroubled, now = RestartHistory(), RestartHistory(), 0.0
    for dt, ending, u in story:
        now += dt
        for _ in range(data.draw(st.integers(0, 12), label="shortages")):
            short = rules.ending(Cause.SHORTAGE, None)
            decision = history.decide(rules, short, now=now, u=u)
            assert isinstance(decision, RestartAfter)
            assert decision.delay <= 5.0
        history.started()
        assert history.shortages == 0
        expected = untroubled.decide(rules, ending, now=now, u=u)
        assert history.decide(rules, ending, now=now, u=u) == expected
    assert history.attempt == untroubled.attempt


def test_shortages_in_a_row_back_off() -> None:
    history, rules = RestartHistory(), RestartRules(backoff=None, intensity=0)
    short = rules.ending(Cause.SHORTAGE, None)
    decisions = [history.decide(rules, short, now=0.0, u=1.0) for _ in range(8)]
    delays = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert decisions == list(map(RestartAfter, delays))


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("returncode", [None, 0, 1, -9])
def test_planned_ending_is_not_a_failure(cause: Cause, returncode: int | None) -> None:
    """Neither is an exit with code 0; every other ending is a failure."""
    ending = Ending(cause=cause, returncode=returncode)
    assert ending.is_planned == (cause in REPLACED | ENDED)
    is_clean_exit = cause is Cause.EXIT and returncode == 0
    assert ending.is_failure == (not ending.is_planned and not is_clean_exit)


@pytest.mark.parametrize(
    ("returncode", "is_failure"), [(0, True), (3, False), (4, True), (-9, True)]
)
def test_success_codes_decide_what_is_a_failure(
    returncode: int, is_failure: bool
) -> None:
    """Then 0 is a success only if it is included."""
    rules = RestartRules(policy=ON_FAILURE, success=frozenset({3}))
    ending = rules.ending(Cause.EXIT, returncode, ready_for=2.0)
    assert ending.is_failure is is_failure
    assert ending.ready_for == 2.0
    decision = RestartHistory().decide(rules, ending, now=0.0, u=0.5)
    assert decision == (RestartAfter(0.0) if is_failure else Leave())


@pytest.mark.parametrize("policy", RestartPolicy)
@pytest.mark.parametrize("returncode", [78, -11])
def test_give_up_on_code_is_not_restarted(
    policy: RestartPolicy, returncode: int
) -> None:
    """With each policy; it still counts as a failure."""
    rules = RestartRules(policy=policy, give_up_on=frozenset({78, -11}))
    ending = rules.ending(Cause.EXIT, returncode)
    assert RestartHistory().decide(rules, ending, now=0.0, u=0.5) == Leave()
    assert ending.is_failure


@pytest.mark.parametrize(
    "cause", [Cause.UNHEALTHY, Cause.STARTUP_TIMEOUT, Cause.RESTART, Cause.MONITOR]
)
def test_give_up_on_ignores_codes_of_our_own_signals(cause: Cause) -> None:
    """Even if a service names SIGKILL, our own SIGKILL does not count."""
    rules = RestartRules(give_up_on=frozenset({-9}))
    ending = rules.ending(cause, -9)
    assert RestartHistory().decide(rules, ending, now=0.0, u=0.5) == RestartAfter(0.0)


@given(stories, stories)
def test_reset_limit_forgets_earlier_restarts(before: Story, after: Story) -> None:
    """A worker of a restarted group decides like a new one."""
    rules = RestartRules(backoff=None, intensity=2, period=20.0)
    history, fresh, now = RestartHistory(), RestartHistory(), 0.0
    for dt, ending, u in before:
        now += dt
        history.decide(rules, ending, now=now, u=u)
    history.reset_limit()
    for dt, ending, u in after:
        now += dt
        expected = fresh.decide(rules, ending, now=now, u=u)
        assert history.decide(rules, ending, now=now, u=u) == expected


def test_reset_limit_keeps_the_backoff() -> None:
    """Two workers of a group that are restarted together do not loop at full speed."""
    rules = RestartRules(backoff=Backoff(base=1, cap=60))
    pair, delays = (RestartHistory(), RestartHistory()), []
    for _ in range(4):
        for history, other in (pair, pair[::-1]):
            delays.append(history.decide(rules, CRASH, now=0.0, u=1.0))
            other.reset_limit()
    assert delays == [RestartAfter(d) for d in (0, 0, 1, 1, 2, 2, 4, 4)]


def test_end_crash_loop_makes_the_next_restart_immediate() -> None:
    """As after a stable run."""
    history = RestartHistory()
    for _ in range(9):
        history.decide(RestartRules(), CRASH, now=0.0, u=0.9)
    history.end_crash_loop()
    decision = history.decide(RestartRules(), CRASH, now=0.0, u=0.9)
    assert (decision, history.attempt) == (RestartAfter(0.0), 1)


def test_crash_loop_is_reported_at_doublings_and_every_ten_minutes() -> None:
    """With a crash per second for two hours."""
    history, told = RestartHistory(), []
    for now in range(7_200):
        history.decide(PLAIN, CRASH, now=float(now), u=0.0)
        if history.should_report(float(now)):
            told.append(history.attempt)
    assert told[:5] == [1, 2, 3, 4, 5]
    assert told[5:13] == [8, 16, 32, 64, 128, 256, 512, 1024]
    assert told[13:] == [
        1624,
        2048,
        2648,
        3248,
        3848,
        4096,
        4696,
        5296,
        5896,
        6496,
        7096,
    ]


def test_default_rules_restart_for_ever_up_to_a_minute_apart() -> None:
    """Without a restart limit, one bad service does not stop the others."""
    history, rules = RestartHistory(), RestartRules()
    assert (rules.intensity, rules.stable_after) == (None, 10.0)
    decisions = [history.decide(rules, CRASH, now=0.0, u=1.0) for _ in range(100)]
    delays = [0, *(0.05 * 2**n for n in range(11))]
    assert decisions == [RestartAfter(d) for d in [*delays, *[60.0] * 88]]


@given(st.floats(0.1, 1e7), jitters)
def test_lifetime_is_up_to_a_tenth_shorter(longest: float, u: float) -> None:
    """And never longer, because it is a maximum."""
    assert longest * 0.9 <= lifetime(longest, u) <= longest


def test_lifetimes_are_spread_evenly() -> None:
    """From nine tenths to the whole."""
    assert [lifetime(100.0, u) for u in (0.0, 0.5)] == [100.0, 95.0]


def _decide_all(rules: RestartRules, times: list[float]) -> list[Decision]:
    history = RestartHistory()
    return [history.decide(rules, CRASH, now=now, u=0.0) for now in times]


@pytest.mark.parametrize(
    ("times", "last"),
    [
        pytest.param([0, 1, 2], RestartAfter(0.0), id="as many as allowed"),
        pytest.param([0, 1, 2, 3], GiveUp(3, 5.0), id="one more"),
        pytest.param([0, 0, 0, 0], GiveUp(3, 5.0), id="all at once"),
        pytest.param([0, 1, 2, 5], GiveUp(3, 5.0), id="the first just in the window"),
        pytest.param([0, 1, 2, 5.25], RestartAfter(0.0), id="the first just out of it"),
        pytest.param([0, 3, 6, 9, 12], RestartAfter(0.0), id="spread out"),
        pytest.param([0, 3, 4, 5.5, 6], GiveUp(3, 5.0), id="the window slides"),
    ],
)
def test_restart_beyond_the_intensity_gives_up(
    times: list[float], last: Decision
) -> None:
    """With intensity=3 and period=5; both ends of the window are included."""
    *before, decision = _decide_all(
        RestartRules(backoff=None, intensity=3, period=5.0), times
    )
    assert before == [RestartAfter(0.0)] * (len(times) - 1)
    assert decision == last


def test_intensity_zero_allows_no_restart() -> None:
    """As in OTP: the first crash exceeds it."""
    assert _decide_all(RestartRules(intensity=0, period=7), [0.0]) == [GiveUp(0, 7)]


def test_without_intensity_restarts_are_unlimited() -> None:
    """And none of them takes memory."""
    history = RestartHistory()
    for _ in range(1_000):
        assert history.decide(PLAIN, CRASH, now=0.0, u=0.9) == RestartAfter(0.0)
    assert not history._restarts


def test_restarts_that_left_the_window_are_forgotten() -> None:
    """A process that crashes daily for years needs no more memory."""
    rules = RestartRules(intensity=3, period=60.0)
    history = RestartHistory()
    for day in range(1_000):
        decision = history.decide(rules, CRASH, now=day * 86_400.0, u=0.0)
        assert isinstance(decision, RestartAfter)
    assert len(history._restarts) == 1


def test_delays_double_from_zero_to_the_cap() -> None:
    """With the largest jitter."""
    rules = RestartRules(backoff=Backoff(base=1, cap=5), intensity=None)
    history = RestartHistory()
    decisions = [history.decide(rules, CRASH, now=0.0, u=1.0) for _ in range(6)]
    assert decisions == [RestartAfter(d) for d in (0, 1, 2, 4, 5, 5)]
    assert history.attempt == 6


@pytest.mark.parametrize(
    ("ready_for", "delay"),
    [
        pytest.param(None, 2.0, id="never ready"),
        pytest.param(0.0, 2.0, id="ready for no time"),
        pytest.param(9.75, 2.0, id="not quite long enough"),
        pytest.param(10.0, 0.0, id="exactly long enough"),
        pytest.param(1e6, 0.0, id="for days"),
    ],
)
@pytest.mark.parametrize("cause", [Cause.EXIT, Cause.RESTART])
def test_stable_run_resets_the_backoff(
    ready_for: float | None, delay: float, cause: Cause
) -> None:
    """Even if it ended in a planned restart."""
    rules = RestartRules(backoff=Backoff(base=1, cap=60), intensity=None)
    history = RestartHistory()
    for _ in range(2):
        history.decide(rules, CRASH, now=0.0, u=1.0)
    ending = Ending(cause=cause, returncode=1, ready_for=ready_for)
    decision = history.decide(rules, ending, now=0.0, u=1.0)
    if cause is Cause.RESTART:
        assert decision == RestartAfter(0.0)
        decision = history.decide(rules, CRASH, now=0.0, u=1.0)
    assert decision == RestartAfter(delay)


@given(
    st.builds(Backoff, base=st.floats(1e-3, 1e3), cap=st.floats(1e-3, 1e6)),
    st.integers(0, 10_000),
    jitters,
)
@example(Backoff(base=1e3, cap=1e6), 10_000, 0.999)  # 2.0**10_000 overflows
def test_delay_is_finite_and_at_most_its_cap(
    backoff: Backoff, attempt: int, u: float
) -> None:
    """However long the crash loop has lasted."""
    assert 0 <= backoff.delay(attempt, u) <= backoff.cap


@given(
    st.builds(Backoff, base=st.floats(1e-3, 1e3), cap=st.floats(1e-3, 1e6)),
    st.integers(0, 200),
    jitters,
)
def test_later_delay_is_not_shorter(backoff: Backoff, attempt: int, u: float) -> None:
    """With the same jitter."""
    assert backoff.delay(attempt, u) <= backoff.delay(attempt + 1, u)


@given(jitters)
def test_full_jitter_is_evenly_distributed(u: float) -> None:
    """The delay is proportional to the jitter."""
    backoff = Backoff(base=1.0, cap=1000.0)
    assert backoff.delay(4, u) == u * 8.0


@pytest.mark.parametrize(
    ("type_", "arguments"),
    [
        (Backoff, {"base": 0}),
        (Backoff, {"base": -1.0}),
        (Backoff, {"base": "1"}),
        (Backoff, {"cap": 0.0}),
        (Backoff, {"cap": math.nan}),
        (Backoff, {"stable_after": -0.5}),
        (RestartRules, {"intensity": -1}),
        (RestartRules, {"intensity": 2.5}),
        (RestartRules, {"period": 0}),
        (RestartRules, {"period": None}),
    ],
)
def test_invalid_rules_are_rejected(
    type_: type[Backoff | RestartRules], arguments: dict[str, Any]
) -> None:
    """The message names the field."""
    (name,) = arguments
    with pytest.raises((ValueError, TypeError), match=name):
        type_(**arguments)
