"""What is done about a process that is being stopped, or has exited."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import trio
from attrs import define, evolve

from trio_supervisor.application import Command
from trio_supervisor.application.worker_policy import WorkerExit
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import ExitReport
from trio_supervisor.controller.child.notifications import NotificationRouter
from trio_supervisor.controller.events import StraysStopped
from trio_supervisor.controller.fleet.fleet import Fleet
from trio_supervisor.controller.fleet.make_generation import GenerationFactory
from trio_supervisor.controller.policy_questions import PolicyQuestions
from trio_supervisor.controller.post_mortem.collect import PostMortemCollector
from trio_supervisor.policy.restart import Ending
from trio_supervisor.process.child import Process
from trio_supervisor.process.cleanup.escaped import stop_escaped
from trio_supervisor.process.cleanup.guardian_client import GuardianClient
from trio_supervisor.process.cleanup.stopping import StopDeadline
from trio_supervisor.process.spawn.environment import MARKER_VARIABLE, PROCESS_VARIABLE

# Timeout of a stack dump taken before a process is stopped [s].
_EVIDENCE_WITHIN: Final = 2.0


@define(eq=False)
class ProcessAftermath:
    """Evidence and leftovers of processes; implements `child_spec.Aftermath`."""

    _fleet: Fleet
    _generation_factory: GenerationFactory
    _guardian: GuardianClient
    _notifications: NotificationRouter
    _post_mortems: PostMortemCollector
    _stop_deadline: StopDeadline
    _policy: PolicyQuestions

    async def stop_escaped(self, child: Child) -> None:
        """Stop descendants of *child*'s exited process that left its process group.

        Then remove its cgroup.
        """
        are_stopped = child.plan.stop.kill_mode == "group"
        if are_stopped:
            await self._stop_marked(child)
        context = self._generation_factory.context
        leaf = context.leaves.pop(child.last_process_id, None)
        if leaf is not None:
            if are_stopped:
                stop, deadline = child.plan.stop, self._stop_deadline
                self._report_stopped(child, await leaf.end_rest(stop, deadline))
            self._post_mortems.kills.note_exit(child.last_process_id)
            context.cgroups.release(leaf)

    async def _stop_marked(self, child: Child) -> None:
        """Stop descendants that have the mark of *child* in their environment."""
        home = self._fleet.generation_of(child)
        if home is None or not self._generation_factory.is_subreaper:
            return
        known = {
            *self._notifications.children,
            self._guardian.process_id,
            *home.launchers.forkers.process_ids,
        }
        marks = [
            f"{PROCESS_VARIABLE}={child.plan.mark(child.incarnation)}",
            # Another controller in this program may have a worker of the same name.
            f"{MARKER_VARIABLE}={self._generation_factory.context.marker}",
        ]
        ended = await stop_escaped(marks, known, child.plan.stop, self._stop_deadline)
        self._report_stopped(child, ended)

    def _report_stopped(self, child: Child, ended: Mapping[int, str]) -> None:
        if ended:
            self._post_mortems.on_event(
                StraysStopped(
                    name=child.name,
                    process_ids=tuple(ended),
                    commands=tuple(ended.values()),
                )
            )

    async def dump_stacks(self, child: Child, process: Process, cause: str) -> None:
        """Save a stack dump of *process* before it is stopped for *cause*."""
        # It is stopped even if there are no file descriptors left for the dump.
        with suppress(OSError), trio.move_on_after(_EVIDENCE_WITHIN):
            await self._post_mortems.dump_stacks(child, process, cause)

    async def find_cause(self, child: Child, process: Process) -> str:
        """Find the cause of an unplanned exit of *process*.

        Returns who sent the SIGKILL that ended it; empty: it exited otherwise.
        """
        with suppress(OSError):
            if reason := await self._post_mortems.explain_kill(child, process):
                return reason
        service = self._fleet.service_of(child)
        arguments = service.arguments if isinstance(service, Command) else ()
        names = {pid: each.name for pid, each in self._notifications.children.items()}
        names[os.getpid()] = "the controller"
        with suppress(OSError):
            await self._post_mortems.find_cause(child, arguments, names)
        return ""

    def exit_report_of(self, child: Child, ending: Ending) -> ExitReport:
        """Return the exit report of *child*'s last process."""
        return self._post_mortems.exit_report_of(child, ending)

    def wants(self, hook: str) -> bool:
        """Return whether the application's policy has the method *hook*."""
        return self._policy.wants(hook)

    async def ask_policy(
        self,
        hook: str,
        child: Child,
        *,
        problem: str = "",
        how: WorkerExit | None = None,
    ) -> str:
        """Return what the policy's method *hook* decides; empty: nothing."""
        if self._stop_deadline.has_expired:
            return ""
        if how is not None:
            how = evolve(how, last_line=self._post_mortems.last_line_of(child))
        return await self._policy.ask(hook, child, problem=problem, how=how)
