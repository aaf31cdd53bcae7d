"""What a policy's verdict makes of a decision."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.controller.child.policy_verdict import overruled
from trio_supervisor.policy.restart import (
    Backoff,
    Decision,
    GiveUp,
    Leave,
    RestartAfter,
    RestartHistory,
    RestartRules,
)

RULES = RestartRules(backoff=Backoff(base=1, cap=8))
DECISIONS: list[Decision] = [RestartAfter(2.5), Leave(), GiveUp(3, 60)]


def history(crashes: int = 0) -> RestartHistory:
    """Return the history of a worker that crashed so often in a row."""
    made = RestartHistory()
    made.attempt = crashes
    return made


@pytest.mark.parametrize("decision", DECISIONS)
def test_no_verdict_changes_nothing(decision: Decision) -> None:
    assert overruled(decision, "", RULES, history(), 0.5) is decision


@pytest.mark.parametrize(
    ("decision", "verdict"),
    [(RestartAfter(2.5), "restart"), (Leave(), "leave"), (GiveUp(3, 60), "give_up")],
)
def test_the_same_verdict_changes_nothing(decision: Decision, verdict: str) -> None:
    assert overruled(decision, verdict, RULES, history(), 0.5) is decision


def test_verdicts_are_followed() -> None:
    assert overruled(RestartAfter(1), "leave", RULES, history(), 0.5) == Leave()
    given_up = overruled(RestartAfter(1), "give_up", RULES, history(), 0.5)
    assert isinstance(given_up, GiveUp)
    assert given_up.problem == "the application's policy gave up"
    exceeded = GiveUp(3, 60, delay=1.5)
    assert overruled(exceeded, "restart", RULES, history(), 0.5) == RestartAfter(1.5)


@given(st.floats(0, 1, exclude_max=True))
def test_restarts_by_verdict_have_the_backoff_too(u: float) -> None:
    past, delays = history(), []
    for _ in range(8):
        found = overruled(Leave(), "restart", RULES, past, u)
        assert isinstance(found, RestartAfter)
        delays.append(found.delay)
    assert delays == pytest.approx([0] + [u * min(8, 2**n) for n in range(7)])
    assert past.attempt == 8
