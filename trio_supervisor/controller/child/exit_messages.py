"""Texts about an exit: why it happened, and what the controller does next."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from trio_supervisor.controller.event_texts import cause_text, exit_text
from trio_supervisor.policy.crash_text import FAILED_TO_START, describe_delay
from trio_supervisor.policy.restart import (
    Cause,
    Decision,
    Ending,
    GiveUp,
    Leave,
    RestartAfter,
    RestartRules,
)
from trio_supervisor.process.child import describe_exit

START_CANCELLED: Final = "start cancelled"
RESTART_LIMIT: Final = "restart limit reached"

_NEVER_STARTED: Final = (Cause.SPAWN, Cause.NO_CODE, Cause.SHORTAGE)
# These delays are not those of the option ``backoff``.
_OTHER_DELAYS: Final = (Cause.NO_CODE, Cause.SHORTAGE)


@frozen
class Fault:
    """Why the controller stops a process without a request."""

    problem: str
    setting: str
    """The setting that makes it a reason."""

    def __str__(self) -> str:
        return f"{self.problem} ({self.setting})"


def timeout_fault(cause: Cause, timeout: float) -> Fault:
    """Return the fault of a process that exceeded the *timeout* of *cause* [s]."""
    if cause is Cause.STARTUP_TIMEOUT:
        return Fault(f"not ready after {timeout:g} s", "startup_timeout")
    return Fault(f"no heartbeat for {timeout:g} s", "health_check_timeout")


def lifetime_text(max_lifetime: float | None) -> str:
    """Return why a process is replaced at the end of its *max_lifetime* [s]."""
    return f"end of lifetime (max_lifetime={max_lifetime:g} s)"


def next_step_text(
    rules: RestartRules,
    ending: Ending,
    decision: Decision,
    *,
    reason: str = "",
    is_overruled: bool = False,
    is_scheduled: bool = False,
    is_by_policy: bool = False,
) -> str:
    """Return what the controller does after *ending*, as the end of a log line.

    Args:
        reason: What the caller gave with its request; may be empty.
        is_overruled: Whether *rules* alone would have restarted the process.
        is_scheduled: Whether its schedule starts it again.
        is_by_policy: Whether the application's policy decided otherwise than *rules*.
    """
    if is_by_policy:
        return _policy_text(decision)
    match decision:
        case RestartAfter(delay):
            verb = "retrying" if ending.returncode is None else "restarting"
            if not delay:
                return verb
            setting = "" if ending.cause in _OTHER_DELAYS else " (backoff)"
            return f"{verb} in {describe_delay(delay)}{setting}"
        case Leave() if is_scheduled and not ending.is_planned:
            return "waiting for the next run (schedule)"
        case Leave():
            why = _why_not(rules, ending, reason=reason, is_overruled=is_overruled)
            return f"not restarting ({why})"
        case GiveUp():
            return f"not restarting ({RESTART_LIMIT})"


def _policy_text(decision: Decision) -> str:
    match decision:
        case RestartAfter(delay):
            when = f" in {describe_delay(delay)}" if delay else ""
            return f"restarting{when} (policy)"
        case Leave():
            return "not restarting (policy)"
    return "giving up (policy)"


def _why_not(
    rules: RestartRules, ending: Ending, *, reason: str, is_overruled: bool
) -> str:
    if ending.is_planned:
        return cause_text(ending.cause, reason)
    if is_overruled:
        return "its generation is being replaced or its service scaled down"
    if ending.cause is Cause.EXIT and ending.returncode in rules.give_up_on:
        return "give_up_on"
    return f'restart="{rules.policy.value}"'


def restart_reason(
    ending: Ending, reason: str, fault: Fault | None, kill_reason: str = ""
) -> str:
    """Return why another process is started after *ending*.

    Args:
        reason: What the caller gave with its request; may be empty.
        fault: Why the process was stopped, if that was not requested.
        kill_reason: Who sent the signal that ended it; empty: unknown.
    """
    if ending.is_planned:
        return cause_text(ending.cause, reason)
    if ending.cause is Cause.EXIT:
        return exit_text(ending.returncode, kill_reason)
    if ending.cause in _NEVER_STARTED:
        return FAILED_TO_START
    return cause_text(ending.cause) if fault is None else str(fault)


def restart_limit_text(
    rules: RestartRules, ending: Ending, problem: str, last_exit: str = ""
) -> str:
    """Return that the restart limit of *rules* is reached.

    Args:
        problem: Why the last start failed, if the process was not started.
        last_exit: How the process exited, if more is known than in *ending*.
    """
    limit = f"(intensity={rules.intensity}, period={rules.period:g} s)"
    how = last_exit or describe_exit(ending.returncode)
    last = f"last exit: {how.removeprefix('exit ')}"
    if ending.returncode is None:
        last = f"last start failed: {problem}"
    return f"{RESTART_LIMIT} {limit}; {last}"


def crash_text(
    name: str, stable_for: float, ending: Ending | None, last_exit: str
) -> str:
    """Return that worker *name* exited before it was up.

    Args:
        stable_for: How long it has to be ready [s].
    """
    what = "did not become ready"
    if ending is not None and ending.ready_for is not None:
        what = f"did not stay up for {stable_for:g} s (stable_for)"
    return f"{name} {what}: {last_exit}"


def trial_text(
    name: str, stable_for: float, ending: Ending | None, last_exit: str, why: str
) -> str:
    """Return why a reload fails: worker *name* of the new generation exited."""
    worker = f"{name} of the new generation"
    if ending is not None and ending.cause is Cause.STARTUP_TIMEOUT:
        return f"{worker} failed: {why}"
    how = last_exit or "stopped"
    if ending is None or ending.ready_for is None:
        return f"{worker} exited before it was ready: {how}"
    if stable_for:
        stable = f"{stable_for:g} s (stable_for)"
        return f"{worker} did not stay up for {stable}: {how}"
    return f"{worker} exited right after it was ready: {how}"
