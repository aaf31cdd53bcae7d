"""What follows from a worker's state and history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.policy.condition import Condition
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.order import Standing
from trio_supervisor.policy.restart import (
    Cause,
    Ending,
    RestartPolicy,
    RestartRules,
)

RULES = RestartRules(policy=RestartPolicy.ON_FAILURE)
DONE = RULES.ending(Cause.EXIT, 0)
CRASHED = RULES.ending(Cause.EXIT, 1)
STOPPED = RULES.ending(Cause.STOP, 0)

CONDITIONS = st.builds(
    Condition,
    st.sampled_from(State),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, DONE, CRASHED, STOPPED]),
)


@pytest.mark.parametrize(
    ("state", "is_wanted", "has_started", "ending", "standing"),
    [
        (State.STOPPED, True, False, None, Standing.NOT_STARTED),
        (State.WAITING, True, False, None, Standing.NOT_STARTED),
        (State.STARTING, True, False, None, Standing.NOT_STARTED),
        (State.STARTING, True, True, None, Standing.STARTED),
        (State.READY, True, True, None, Standing.READY),
        (State.UNREADY, True, True, None, Standing.STARTED),
        (State.UNHEALTHY, True, True, None, Standing.STARTED),
        (State.STOPPING, True, True, None, Standing.STARTED),
        (State.BACKOFF, True, True, CRASHED, Standing.STARTED),
        # A stop was requested: dependents must not start.
        (State.READY, False, True, None, Standing.NOT_STARTED),
        (State.STOPPING, False, True, None, Standing.NOT_STARTED),
        (State.STOPPED, False, True, STOPPED, Standing.NOT_STARTED),
        (State.STOPPED, False, True, None, Standing.NOT_STARTED),
        # It exited on its own.
        (State.STOPPED, False, True, DONE, Standing.EXITED_OK),
        (State.FAILED, False, True, CRASHED, Standing.FAILED),
        (State.FAILED, False, False, CRASHED, Standing.NOT_STARTED),
    ],
)
def test_standing(
    state: State,
    is_wanted: bool,
    has_started: bool,
    ending: Ending | None,
    standing: Standing,
) -> None:
    assert Condition(state, is_wanted, has_started, ending).standing is standing


@given(CONDITIONS)
def test_what_was_stopped_did_not_exit_on_its_own(condition: Condition) -> None:
    assert not (condition.was_stopped and condition.has_exited_for_good)
    assert not (condition.was_stopped and condition.is_wanted)
    if condition.has_exited_for_good:
        assert condition.is_down


@given(CONDITIONS)
def test_only_a_worker_that_runs_is_ready(condition: Condition) -> None:
    is_ready = condition.standing is Standing.READY
    assert is_ready == (condition.state is State.READY and condition.is_wanted)


def test_a_worker_that_should_run_for_ever_has_never_done_its_work() -> None:
    exited = Condition(State.STOPPED, False, True, DONE)
    assert exited.has_done_its_work(RULES)
    assert not exited.has_done_its_work(RestartRules(policy=RestartPolicy.ALWAYS))
    last = RestartRules(policy=RestartPolicy.ALWAYS, give_up_on=frozenset({0}))
    assert exited.has_done_its_work(last)


def test_a_job_that_failed_has_not_done_its_work() -> None:
    assert not Condition(State.FAILED, False, True, CRASHED).has_done_its_work(RULES)
    assert not Condition(State.STOPPED, False, True, None).has_done_its_work(RULES)
