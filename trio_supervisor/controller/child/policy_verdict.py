"""Follow what the application's policy decides about a process."""

from __future__ import annotations

from typing import Final

import trio

from trio_supervisor.application.worker_policy import ExitDecision, WorkerExit
from trio_supervisor.controller.child.child_facts import ChildFacts
from trio_supervisor.controller.child.process_state import ProcessState
from trio_supervisor.policy.restart import (
    Cause,
    Decision,
    Ending,
    GiveUp,
    Leave,
    RestartAfter,
    RestartHistory,
    RestartRules,
)
from trio_supervisor.process.child import Process, describe_exit

_HOOKS: Final = {
    Cause.UNHEALTHY: "health_check_failed",
    Cause.STARTUP_TIMEOUT: "startup_failed",
}


async def verdict_on_exit(
    child: ChildFacts, ending: Ending, problem: str, decision: Decision
) -> Decision:
    """Return what follows *ending*, which was not asked for: *decision*, or another."""
    if not child.aftermath.wants("worker_exited"):
        return decision
    reason = problem or describe_exit(ending.returncode, child.kill_reason)
    how = WorkerExit(
        returncode=ending.returncode,
        reason=reason,
        is_failure=ending.is_failure,
        last_line="",  # added by the aftermath
        decision=_named(decision),
    )
    verdict = await child.aftermath.ask_policy("worker_exited", child, how=how)
    u = child.rng.random()
    return overruled(decision, verdict, child.plan.rules, child.history, u)


def overruled(
    decision: Decision,
    verdict: str,
    rules: RestartRules,
    history: RestartHistory,
    u: float,
) -> Decision:
    """Return the decision that *verdict* of a policy makes of *decision*.

    Args:
        history: Records a crash if *decision* was not to restart it.
        u: A random number from [0, 1), for the jitter.
    """
    if verdict == _named(decision) or not verdict:
        return decision
    if verdict == "leave":
        return Leave()
    if verdict == "give_up":
        return GiveUp(0, rules.period, problem="the application's policy gave up")
    if isinstance(decision, GiveUp):  # its crash is recorded
        return RestartAfter(decision.delay)
    return RestartAfter(history.next_delay(rules, u))


async def may_stay(
    child: ChildFacts, process: Process, cause: Cause, observed: ProcessState
) -> bool:
    """Return whether the policy keeps a process that is to be stopped for *cause*.

    Then its timeout begins again.
    """
    hook = _HOOKS.get(cause)
    if hook is None or not child.aftermath.wants(hook):
        return False
    problem = cause.value if child.fault is None else str(child.fault)
    verdict = await child.aftermath.ask_policy(hook, child, problem=problem)
    if verdict != "keep" or process.returncode is not None:
        return False
    child.fault = None
    observed.stay(trio.current_time())
    return True


def _named(decision: Decision) -> ExitDecision:
    match decision:
        case RestartAfter():
            return "restart"
        case Leave():
            return "leave"
    return "give_up"
