"""The life of a process as a table. Rule: every state change goes through advance().

Not every state is visited: a command that does not notify is ready once started.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import Final

from trio_supervisor.errors import LocalProtocolError


class State(Enum):
    """Where a process stands; the values are the words of ``status --json``."""

    WAITING = "waiting"
    """It is to be started as soon as what it depends on is there."""
    STARTING = "starting"
    """It is being started, or has not said yet that it is ready."""
    READY = "ready"
    """It said so."""
    UNREADY = "unready"
    """It said, or a probe says, that it cannot work now; nobody ends it for that."""
    UNHEALTHY = "unhealthy"
    """Its heartbeats stopped; it is about to be stopped for that."""
    STOPPING = "stopping"
    """It was asked to end."""
    BACKOFF = "backoff"
    """It ended; the next one is started after a delay."""
    STOPPED = "stopped"
    """It ended as it should, and stays so until somebody starts it."""
    FAILED = "failed"
    """It ended as it should not, and stays so until somebody starts it."""


class Event(Enum):
    """What moves a process from state to state."""

    WAIT = "wait"
    """It is to be started, and something that it depends on is not there."""
    SPAWN = "spawn"
    """A new incarnation begins."""
    READY = "ready"
    UNREADY = "unready"
    """It said, or a probe says, that it cannot work at the moment."""
    SICKEN = "sicken"
    """A heartbeat did not come in time."""
    STOP = "stop"
    """It is asked to end, for whatever cause."""
    RETRY = "retry"
    """It ended; another follows."""
    END = "end"
    """It ended, as it should, and nothing follows."""
    FAIL = "fail"
    """It ended, as it should not, and nothing follows."""


S, E = State, Event

TRANSITIONS: Final = MappingProxyType(
    {
        (S.STARTING, E.READY): S.READY,
        (S.READY, E.UNREADY): S.UNREADY,
        (S.UNREADY, E.READY): S.READY,
        (S.READY, E.SICKEN): S.UNHEALTHY,
        (S.UNREADY, E.SICKEN): S.UNHEALTHY,
        (S.STARTING, E.STOP): S.STOPPING,
        (S.READY, E.STOP): S.STOPPING,
        (S.UNREADY, E.STOP): S.STOPPING,
        (S.UNHEALTHY, E.STOP): S.STOPPING,
        # Any process can end by itself, whatever it was doing.
        (S.STARTING, E.RETRY): S.BACKOFF,
        (S.READY, E.RETRY): S.BACKOFF,
        (S.UNREADY, E.RETRY): S.BACKOFF,
        (S.UNHEALTHY, E.RETRY): S.BACKOFF,
        (S.STOPPING, E.RETRY): S.BACKOFF,
        (S.STARTING, E.END): S.STOPPED,
        (S.READY, E.END): S.STOPPED,
        (S.UNREADY, E.END): S.STOPPED,
        (S.UNHEALTHY, E.END): S.STOPPED,
        (S.STOPPING, E.END): S.STOPPED,
        (S.BACKOFF, E.END): S.STOPPED,
        (S.STARTING, E.FAIL): S.FAILED,
        (S.READY, E.FAIL): S.FAILED,
        (S.UNREADY, E.FAIL): S.FAILED,
        (S.UNHEALTHY, E.FAIL): S.FAILED,
        (S.STOPPING, E.FAIL): S.FAILED,
        (S.BACKOFF, E.SPAWN): S.STARTING,
        (S.STOPPED, E.SPAWN): S.STARTING,
        (S.FAILED, E.SPAWN): S.STARTING,
        # What would be started has to wait for others first.
        (S.BACKOFF, E.WAIT): S.WAITING,
        (S.STOPPED, E.WAIT): S.WAITING,
        (S.FAILED, E.WAIT): S.WAITING,
        (S.WAITING, E.SPAWN): S.STARTING,
        (S.WAITING, E.END): S.STOPPED,
        # A failed one that is stopped by hand is no failure any more.
        (S.FAILED, E.END): S.STOPPED,
    }
)


def advance(state: State, event: Event) -> State:
    """Return the state that *event* leads to.

    Raises:
        LocalProtocolError: *event* cannot happen in *state*: a bug in the caller.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise LocalProtocolError(f"{event.name} in state {state.name}") from None
