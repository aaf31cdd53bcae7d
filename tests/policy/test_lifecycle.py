"""The table of a process's life, drawn a second time and walked through."""

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
def test_each_event_leads_where_the_picture_says(
    state: State, event: Event, to: str
) -> None:
    """And what cannot happen is a bug of the caller, told by name."""
    if to == ".":
        with pytest.raises(LocalProtocolError, match=f"{event.name}.*{state.name}"):
            advance(state, event)
    else:
        assert advance(state, event) is State[to]


def test_the_picture_shows_every_state_and_every_event() -> None:
    """A new one needs a row or a column."""
    pairs = [(state, event) for state, event, _ in CELLS]
    assert sorted(pairs, key=str) == sorted(product(State, Event), key=str)


def _reachable(start: State) -> set[State]:
    seen, new = {start}, {start}
    while new:
        new = {to for (at, _), to in TRANSITIONS.items() if at in new} - seen
        seen |= new
    return seen


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_reached_from_every_other(state: State) -> None:
    """Nothing is a dead end: what ended can be started, what lives can end."""
    assert _reachable(state) == set(State)


@pytest.mark.parametrize("state", [state for state in State if state in LIVING])
def test_whatever_lives_can_end_at_any_moment(state: State) -> None:
    """By itself, in one step, in each of the three ways."""
    assert advance(state, Event.RETRY) is State.BACKOFF
    assert advance(state, Event.END) is State.STOPPED
    assert advance(state, Event.FAIL) is State.FAILED


@pytest.mark.parametrize("state", State)
def test_a_process_lives_only_after_a_spawn(state: State) -> None:
    """No event but SPAWN leads from a state without a process to one with it."""
    for event in Event:
        if state not in LIVING and event is not Event.SPAWN:
            assert TRANSITIONS.get((state, event)) not in LIVING


def test_what_is_unready_is_treated_as_what_is_ready() -> None:
    """It is shown, and nothing else: what can happen to the one can to the other."""
    back_and_forth = {Event.READY, Event.UNREADY}
    for event in set(Event) - back_and_forth:
        ready = TRANSITIONS.get((State.READY, event))
        assert TRANSITIONS.get((State.UNREADY, event)) is ready


def test_the_table_cannot_be_changed() -> None:
    """It is one for all processes."""
    with pytest.raises(TypeError):
        TRANSITIONS[State.STOPPED, Event.END] = State.STOPPED  # type: ignore[index]


def test_the_words_of_status_are_frozen() -> None:
    """Programs read them from `status --json`."""
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
