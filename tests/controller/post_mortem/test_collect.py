"""What a process said before it ended counts, though it is read after."""

from __future__ import annotations

import random

import trio

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import ChildPlan
from trio_supervisor.controller.events import Event
from trio_supervisor.policy.restart import RestartPolicy, RestartRules
from trio_supervisor.process.child import Process
from trio_supervisor.process.cleanup.stopping import StopDeadline
from trio_supervisor.process.notify.sd_notify import Notification
from trio_supervisor.testing import FakeProcess, in_virtual_time


class Ear:
    """Remembers what happened, in order."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def on_change(self, child: Child) -> None:
        pass

    def on_process(self, child: Child, process: Process, is_running: bool) -> None:
        pass

    def on_event(self, event: Event) -> None:
        self.kinds.append(event.kind)


@in_virtual_time
async def test_one_that_says_ready_and_ends_at_once_was_ready() -> None:
    ear, process = Ear(), FakeProcess()

    async def spawn(incarnation: int) -> Process:
        process.exit(0)
        return process

    def hear() -> None:
        said = Notification(process_id=process.pid, fields={"READY": "1"})
        child.notified(said)

    rules = RestartRules(policy=RestartPolicy.NEVER)
    plan = ChildPlan(name="job.0", service="job", rules=rules)
    child = Child(plan, spawn, ear, random.Random(0), StopDeadline(), hear)
    with trio.move_on_after(1):
        await child.run()
    assert ear.kinds == ["started", "ready", "exited"]
