"""What is said of the end of a process, and of what follows."""

from __future__ import annotations

from trio_supervisor.controller.events import CAUSES
from trio_supervisor.policy.crash_text import describe_delay
from trio_supervisor.policy.restart import (
    Cause,
    Decision,
    Ending,
    GiveUp,
    Leave,
    Restart,
)
from trio_supervisor.process.child import describe_exit


def next_step_of(decision: Decision) -> str:
    """Return what follows."""
    match decision:
        case Restart(0.0):
            return "restarting"
        case Restart(delay):
            return f"restarting in {describe_delay(delay)}"
        case Leave():
            return "left ended"
        case GiveUp():
            return "giving up"


def why_again(ending: Ending, reason: str) -> str:
    """Return why another one is started, in a few words.

    Args:
        reason: What was given with the request, if there was one.
    """
    match ending.cause:
        case Cause.EXIT:
            return f"it ended: {describe_exit(ending.returncode)}"
        case Cause.SPAWN | Cause.NO_CODE | Cause.SHORTAGE:
            return "it could not be started"
        case cause:
            word = CAUSES[cause]
            return f"{word}: {reason}" if ending.is_planned and reason else word


def too_often(name: str, ending: Ending, restarts: int, period: float) -> str:
    """Return why *name* is given up after *ending*."""
    how = f"the last time with {describe_exit(ending.returncode)}"
    return (
        f"{name} was restarted {restarts} times within {period:g} s "
        f"and ended again, {how}"
    )
