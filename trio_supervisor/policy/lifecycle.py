"""States of a process and the transitions between them. Pure.

Every change of state goes through `advance`. A process need not pass through every
state: a command without readiness notification is ready once it is started.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import Final

from trio_supervisor.errors import LocalProtocolError


class State(Enum):
    """State of a process; the values are those of ``status --json``."""

    WAITING = "waiting"
    """It starts once its dependencies are satisfied."""
    STARTING = "starting"
    """It is being started, or has not reported readiness yet."""
    READY = "ready"
    """It has reported readiness."""
    UNREADY = "unready"
    """It reports, or a probe reports, that it cannot work now; it is not stopped."""
    UNHEALTHY = "unhealthy"
    """Its heartbeats stopped; it is about to be stopped."""
    STOPPING = "stopping"
    """It was asked to stop."""
    BACKOFF = "backoff"
    """It exited, and is started again after a delay."""
    STOPPED = "stopped"
    """It exited as expected, and is not started again unless requested."""
    FAILED = "failed"
    """It exited unexpectedly, and is not started again unless requested."""


class Event(Enum):
    """What changes the state of a process."""

    WAIT = "wait"
    """It is to be started, but a dependency is not satisfied yet."""
    SPAWN = "spawn"
    """A new incarnation is started."""
    READY = "ready"
    UNREADY = "unready"
    """It reports, or a probe reports, that it cannot work at the moment."""
    SICKEN = "sicken"
    """A heartbeat was not received in time."""
    STOP = "stop"
    """It is asked to stop, for any cause."""
    RETRY = "retry"
    """It exited, and is restarted."""
    END = "end"
    """It exited as expected, and is not restarted."""
    FAIL = "fail"
    """It exited unexpectedly, and is not restarted."""


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
        # Any process can exit on its own at any time.
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
        # A start that has to wait for dependencies.
        (S.BACKOFF, E.WAIT): S.WAITING,
        (S.STOPPED, E.WAIT): S.WAITING,
        (S.FAILED, E.WAIT): S.WAITING,
        (S.WAITING, E.SPAWN): S.STARTING,
        (S.WAITING, E.END): S.STOPPED,
        # Stopping a failed process acknowledges the failure.
        (S.FAILED, E.END): S.STOPPED,
    }
)


def advance(state: State, event: Event) -> State:
    """Return the state that follows *state* upon *event*.

    Raises:
        LocalProtocolError: *event* cannot happen in *state*: a bug in the caller.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise LocalProtocolError(f"{event.name} in state {state.name}") from None
