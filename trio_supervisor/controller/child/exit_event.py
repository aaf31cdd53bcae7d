"""Report how a process of a child ended, and what follows."""

from __future__ import annotations

import trio

from trio_supervisor.controller.child.child_facts import ChildFacts
from trio_supervisor.controller.child.exit_messages import START_CANCELLED
from trio_supervisor.controller.events import Event, ProcessExited, StartFailed
from trio_supervisor.policy.restart import Cause, Decision, Ending, RestartAfter


def exit_event(
    child: ChildFacts, ending: Ending, problem: str, decision: Decision, next_step: str
) -> Event:
    """Return the event of *ending*; *child* remembers the same for `status`.

    Args:
        problem: Why the start failed, if there was no process.
        next_step: What the controller does next, in words.
    """
    is_retry = isinstance(decision, RestartAfter)
    is_short = is_retry and ending.cause is Cause.SHORTAGE
    is_crash = is_retry and not (ending.is_planned or is_short)
    crashes = child.crashes if is_crash else 0
    is_repeat = is_crash and not child.history.should_report(trio.current_time())
    if ending.returncode is None:
        child.last_exit, child.last_line, child.problem = problem, "", ""
        return StartFailed(
            name=child.name,
            problem=problem,
            next_step=next_step,
            crashes=crashes,
            is_repeat=is_repeat or is_short,
            is_shortage=is_short,
            is_cancelled=problem == START_CANCELLED,
        )
    report = child.aftermath.exit_report_of(child, ending)
    child.last_line, child.problem = report.last_line, report.problem
    return ProcessExited(
        name=child.name,
        process_id=child.last_process_id,
        returncode=ending.returncode,
        is_planned=ending.is_planned,
        is_failure=ending.is_failure,
        next_step=next_step,
        last_lines=report.last_lines,
        last_line=report.last_line,
        post_mortem=report.post_mortem,
        crashes=crashes,
        problem=report.problem,
        kill_reason=report.kill_reason,
        is_repeat=is_repeat,
    )
