"""Stop the process of a child and all that belongs to it, and say so."""

from __future__ import annotations

from typing import Final

import trio

from trio_supervisor.controller.child.child_facts import ChildFacts
from trio_supervisor.controller.child.process_state import ProcessState
from trio_supervisor.controller.events import (
    ProcessStopping,
    ProcessStuck,
    SignalNotPermitted,
)
from trio_supervisor.policy.lifecycle import Event as Step
from trio_supervisor.policy.restart import Cause
from trio_supervisor.process.child import Process, describe_exit
from trio_supervisor.process.cleanup.stopping import stop
from trio_supervisor.tasks import open_nursery

# Interval of the warning while a killed process does not exit (D state) [s].
_STUCK_INTERVAL: Final = 10.0


def announce_stop(child: ChildFacts, process: Process, cause: Cause) -> None:
    """Show *child* as stopping, and report why, unless its process has exited."""
    if process.returncode is not None:
        if not process.is_gone:  # the rest of its process group is stopped first
            child.step(Step.STOP)
        return
    child.step(Step.STOP)
    fault = child.fault
    child.watcher.on_event(
        ProcessStopping(
            name=child.name,
            process_id=process.pid,
            cause=cause.value,
            reason=child.request_reason if cause is child.request else "",
            problem="" if fault is None else fault.problem,
            setting="" if fault is None else fault.setting,
            is_repeat=cause is not child.request and child.is_repeating,
        )
    )


async def end_process(
    child: ChildFacts, process: Process, observed: ProcessState
) -> None:
    """Stop the rest of the process and its process group, and reap it."""

    async def dump_stacks(process: Process) -> None:
        is_news = process.returncode is None and not observed.was_dumped
        if is_news and not child.stop_deadline.has_expired:
            await child.aftermath.dump_stacks(child, process, "stop_timeout")

    async with open_nursery() as nursery:
        nursery.start_soon(_complain, child, process)
        left = await stop(
            process,
            child.plan.stop,
            child.stop_deadline,
            child.plan.pre_stop,
            dump_stacks,
        )
        await child.aftermath.stop_escaped(child)
        nursery.cancel_scope.cancel()
    child.not_permitted = ", ".join(map(str, left))
    child.last_exit = child.not_permitted or describe_exit(process.returncode)
    child.process = None
    child.started_at = child.ready_at = None
    child.watcher.on_process(child, process, False)
    process.close()


def report_not_permitted(child: ChildFacts) -> None:
    """Report that the process of *child* could not be stopped, and still runs."""
    event = SignalNotPermitted(
        name=child.name, process_id=child.last_process_id, problem=child.not_permitted
    )
    child.watcher.on_event(event)


async def _complain(child: ChildFacts, process: Process) -> None:
    """Report again and again that the process, which was killed, does not exit."""
    began = trio.current_time()
    await trio.sleep(child.plan.stop.timeout)
    while True:
        await trio.sleep(_STUCK_INTERVAL)
        event = ProcessStuck(
            name=child.name,
            process_id=process.pid,
            seconds=trio.current_time() - began,
            remaining=process.describe_remaining(),
        )
        child.watcher.on_event(event)
