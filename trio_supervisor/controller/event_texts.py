"""Phrases that several events have in common."""

from __future__ import annotations

import logging
from typing import Final

from trio_supervisor.policy.crash_text import FAILED_TO_START
from trio_supervisor.policy.restart import Cause
from trio_supervisor.process.child import describe_exit

_CAUSES: Final = {
    Cause.EXIT: "exit",
    Cause.SPAWN: FAILED_TO_START,
    Cause.NO_CODE: FAILED_TO_START,
    Cause.SHORTAGE: FAILED_TO_START,
    Cause.STARTUP_TIMEOUT: "startup timeout",
    Cause.UNHEALTHY: "health check timeout",
    Cause.RESTART: "restart requested",
    Cause.STOP: "stop requested",
    Cause.SCALE: "scaled down",
    Cause.RELOAD: "reload",
    Cause.IDLE: "idle",
    Cause.LIFETIME: "lifetime over",
    Cause.MONITOR: "restart requested by a monitor",
    Cause.WORKER: "restart requested by the worker",
    Cause.GROUP: "restart with its group",
}
# The reason given with one of these says it all.
_SAID_BY_REASON: Final = (Cause.STOP, Cause.IDLE, Cause.LIFETIME)
FEWER: Final = "; crash loop: from now on logging only crashes 8, 16, 32, ..."


def cause_text(cause: Cause, reason: str = "") -> str:
    """Return why a process is stopped or started again.

    Args:
        reason: What the caller gave with its request; may be empty.
    """
    if reason and cause in _SAID_BY_REASON:
        return reason
    return f"{_CAUSES[cause]}: {reason}" if reason else _CAUSES[cause]


def exit_text(returncode: int | None, kill_reason: str = "") -> str:
    """Return how a process ended, as a predicate: ``exited with code 3``.

    Args:
        kill_reason: Who sent the signal; empty: unknown.
    """
    how = describe_exit(returncode, kill_reason)
    return how.replace("exit code", "exited with code", 1)


def unless_repeat(level: int, is_repeat: bool) -> int:
    """Return *level*, or DEBUG for one of many crashes that the log leaves out."""
    return logging.DEBUG if is_repeat else level
