"""Test the state machine of a process against a picture of it."""

from __future__ import annotations

from itertools import product

import pytest

from trio_supervisor.errors import LocalProtocolError
from trio_supervisor.policy.lifecycle import TRANSITIONS, Event, State, advance

# A state without a way is one where the event cannot happen.
PICTURE = """
            WAIT     SPAWN     READY  UNREADY  SICKEN     STOP      RETRY    END      FAIL
 WAITING    .        STARTING  .      .        .          .         .        STOPPED  .
 STARTING   .        .         READY  .        .          STOPPING  BACKOFF  STOPPED  FAILED
 READY      .        .         .      UNREADY  UNHEALTHY  STOPPING  BACKOFF  STOPPED  FAILED
 UNREADY    .        .         READY  .        UNHEALTHY  STOPPING  BACKOFF  STOPPED  FAILED
 UNHEALTHY  .        .         .      .        .          STOPPING  BACKOFF  STOPPED  FAILED
 STOPPING   .        .         .      .        .          .         BACKOFF  STOPPED  FAILED
 BACKOFF    WAITING  STARTING  .      .        .          .         .        STOPPED  .
 STOPPED    WAITING  STARTING  .      .        .          .         .        .        .
 FAILED     WAITING  STARTING  .      .        .          .         .        STOPPED  .
"""  # noqa: E501 (a table)
HEAD, *ROWS = (line.split() for line in PICTURE.strip().splitlines())
CELLS = [
    (State[row[0]], Event[event], to)
    for row in ROWS
    for event, to in zip(HEAD, row[1:], strict=True)
]
LIVING = {
    State.STARTING,
    State.READY,
    State.UNREADY,
    State.UNHEALTHY,
    State.STOPPING,
}


@pytest.mark.parametrize(("state", "event", "to"), CELLS)
def test_advance_agrees_with_the_picture(state: State, event: Event, to: str) -> None:
    """An impossible event raises an error that names it."""
    if to == ".":
        with pytest.raises(LocalProtocolError, match=f"{event.name}.*{state.name}"):
            advance(state, event)
    else:
        assert advance(state, event) is State[to]


def test_picture_has_every_state_and_event() -> None:
    """Add a row or a column for a new one."""
    pairs = [(state, event) for state, event, _ in CELLS]
    assert sorted(pairs, key=str) == sorted(product(State, Event), key=str)


def _reachable(start: State) -> set[State]:
    seen, new = {start}, {start}
    while new:
        new = {to for (at, _), to in TRANSITIONS.items() if at in new} - seen
        seen |= new
    return seen


@pytest.mark.parametrize("state", State)
def test_every_state_is_reachable_from_every_other(state: State) -> None:
    """There is no dead end."""
    assert _reachable(state) == set(State)


@pytest.mark.parametrize("state", [state for state in State if state in LIVING])
def test_running_process_can_exit_in_any_state(state: State) -> None:
    """With RETRY, END and FAIL, in one step."""
    assert advance(state, Event.RETRY) is State.BACKOFF
    assert advance(state, Event.END) is State.STOPPED
    assert advance(state, Event.FAIL) is State.FAILED


@pytest.mark.parametrize("state", State)
def test_process_exists_only_after_spawn(state: State) -> None:
    """Only SPAWN leads from a state without a process to one with a process."""
    for event in Event:
        if state not in LIVING and event is not Event.SPAWN:
            assert TRANSITIONS.get((state, event)) not in LIVING


def test_unready_has_the_same_transitions_as_ready() -> None:
    """The state is only shown."""
    back_and_forth = {Event.READY, Event.UNREADY}
    for event in set(Event) - back_and_forth:
        ready = TRANSITIONS.get((State.READY, event))
        assert TRANSITIONS.get((State.UNREADY, event)) is ready


def test_transitions_are_read_only() -> None:
    """All processes share the table."""
    with pytest.raises(TypeError):
        TRANSITIONS[State.STOPPED, Event.END] = State.STOPPED  # type: ignore[index]


def test_state_values_are_stable() -> None:
    """Programs read them in `status --json`."""
    assert [state.value for state in State] == [
        "waiting",
        "starting",
        "ready",
        "unready",
        "unhealthy",
        "stopping",
        "backoff",
        "stopped",
        "failed",
    ]
