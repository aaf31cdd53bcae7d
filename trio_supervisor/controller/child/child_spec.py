"""Define the plan of a child and the protocols of its hooks and watchers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from attrs import field, frozen

from trio_supervisor.application import SUPERVISOR_NAME
from trio_supervisor.application.worker_policy import WorkerExit
from trio_supervisor.controller.child.exit_messages import lifetime_text
from trio_supervisor.controller.events import Event
from trio_supervisor.policy.restart import (
    Backoff,
    Cause,
    Decision,
    Ending,
    RestartRules,
)
from trio_supervisor.process.child import Process
from trio_supervisor.process.cleanup.stopping import PreStop, StopPlan
from trio_supervisor.process.spawn.environment import process_mark

Spawn: TypeAlias = Callable[[int], Awaitable[Process]]
"""Function that starts the incarnation of that number, or raises OSError."""
Prober: TypeAlias = Callable[[Any, Process], Awaitable[None]]
"""Function that probes a process until cancelled and reports to its child."""
C_contra = TypeVar("C_contra", contravariant=True)


@frozen(kw_only=True)
class ChildPlan:
    """Settings of a child: how it is started, watched, restarted and stopped."""

    name: str
    service: str
    generation: int = 1
    rules: RestartRules = field(factory=RestartRules)
    stop: StopPlan = field(factory=StopPlan)
    pre_stop: PreStop | None = None
    """Hook that runs before the stop signal."""
    startup_timeout: float | None = 60.0
    """[s]"""
    health_check_timeout: float | None = None
    """[s]"""
    max_lifetime: float | None = None
    """[s]"""
    stable_for: float = 0.0
    """How long it must be ready before a caller is told that it is up [s]."""
    notifies: bool = True
    """Whether it notifies readiness; if not, it is ready once started or probed."""
    prober: Prober | None = None
    """Health probes that must succeed as well."""
    connects: bool = True
    """Whether it connects to the supervisor."""
    beats_from_ready: bool = True
    """Whether heartbeats are due from READY on, or only once the first one came."""
    needs: tuple[str, ...] = ()
    """Names of the dependencies of its service."""
    may: tuple[str, ...] = ()
    """Operations that it may request from the supervisor."""
    is_scheduled: bool = False
    """Whether it runs by a schedule: it is not missed while it does not run."""

    @property
    def says_ready(self) -> bool:
        """Whether its readiness is notified or probed."""
        return self.notifies or self.prober is not None

    def mark(self, incarnation: int) -> str:
        """Return the marker that identifies descendants of that process."""
        return process_mark(self.name, self.generation, incarnation)


@frozen(kw_only=True)
class ExitReport:
    """Details of the exit of a process."""

    last_lines: tuple[str, ...] = ()
    """Last lines of its output."""
    last_line: str = ""
    """Line that most likely states the cause."""
    post_mortem: str = ""
    """Path of the post-mortem file; empty: there is none."""
    problem: str = ""
    """Known cause of the exit."""
    kill_reason: str = ""
    """Who sent a SIGKILL that the controller did not send; else empty."""


class Watcher(Protocol[C_contra]):
    """Callbacks of a child to its owner."""

    def on_change(self, child: C_contra) -> None:
        """Handle a change of a public attribute of *child*."""
        ...

    def on_process(self, child: C_contra, process: Process, is_running: bool) -> None:
        """Handle the start of a process of *child*, or the exit of its group."""
        ...

    def on_event(self, event: Event) -> None:
        """Report an event that an operator may want to know."""
        ...


class Permission(Protocol[C_contra]):
    """What the fleet decides for a child."""

    def missing_needs_of(self, child: C_contra) -> str:
        """Describe the missing dependencies of *child*; empty: none.

        `Child.check_again` makes the child call this again.
        """
        ...

    def review(self, child: C_contra, ending: Ending, decision: Decision) -> Decision:
        """Return the final decision after an unplanned *ending*."""
        ...

    def on_lifetime_over(self, child: C_contra) -> None:
        """Handle that *child* reached its maximum lifetime."""
        ...

    def on_restart_wanted(self, child: C_contra, reason: str) -> None:
        """Handle that the process of *child* requested its own restart."""
        ...


class Aftermath(Protocol[C_contra]):
    """What is done about a process that is being stopped, or has exited."""

    async def stop_escaped(self, child: C_contra) -> None:
        """Stop descendants of *child*'s exited process that left its process group.

        Those of a worker with ``kill_mode="leader"`` keep running.
        """
        ...

    async def dump_stacks(self, child: C_contra, process: Process, cause: str) -> None:
        """Save a stack dump of *process* before it is stopped for *cause*; be quick."""
        ...

    async def find_cause(self, child: C_contra, process: Process) -> str:
        """Find the cause of an unplanned exit of *process*.

        Returns who sent the SIGKILL that ended it; empty: it exited otherwise.
        """
        ...

    def exit_report_of(self, child: C_contra, ending: Ending) -> ExitReport:
        """Return the exit report of *child*'s last process."""
        ...

    def wants(self, hook: str) -> bool:
        """Return whether the application's policy has the method *hook*."""
        ...

    async def ask_policy(
        self,
        hook: str,
        child: C_contra,
        *,
        problem: str = "",
        how: WorkerExit | None = None,
    ) -> str:
        """Return what the policy's method *hook* decides; empty: nothing."""
        ...


class LoadControl(Protocol):
    """Hooks that may delay a start or the stop of an unresponsive process."""

    def heard_from(self, process_id: int) -> None:
        """Note a heartbeat of the process."""
        ...

    def extra_time(self, process_id: int, since: float, timeout: float) -> float:
        """Return by how much to extend the deadline [s]; 0: stop the process."""
        ...

    def admit(self, child: Any) -> str:
        """Return why *child* may not start yet; empty: it may start now.

        `Child.check_again` makes the child call this again.
        """
        ...

    def started(self, child: Any) -> None:
        """Note that *child* is ready, has exited, or should not start any more."""
        ...

    def measure(self, process_id: int) -> Callable[[float], float]:
        """Start to measure the time in which the process could run.

        Returns a function that takes a timeout [s] and returns what is left of it.
        """
        ...


class _NoLoadControl:
    """Load control that never extends a timeout or delays a start."""

    def heard_from(self, process_id: int) -> None:
        return

    def extra_time(self, process_id: int, since: float, timeout: float) -> float:
        return 0.0

    def admit(self, child: object) -> str:
        return ""

    def started(self, child: object) -> None:
        return

    def measure(self, process_id: int) -> Callable[[float], float]:
        return lambda timeout: 0.0


NO_LOAD_CONTROL: Final = _NoLoadControl()


class _AlwaysPermitted:
    """Permission of a child without dependencies."""

    def missing_needs_of(self, child: object) -> str:
        return ""

    def review(self, child: object, ending: Ending, decision: Decision) -> Decision:
        return decision

    def on_lifetime_over(self, child: Any) -> None:
        reason = lifetime_text(child.plan.max_lifetime)
        child.request_restart(reason, Cause.LIFETIME)

    def on_restart_wanted(self, child: Any, reason: str) -> None:
        child.request_restart(reason, Cause.WORKER)


ALWAYS_PERMITTED: Final = _AlwaysPermitted()


class _NoAftermath:
    """Nothing is done about a process."""

    async def stop_escaped(self, child: object) -> None:
        return

    async def dump_stacks(self, child: object, process: Process, cause: str) -> None:
        return

    async def find_cause(self, child: object, process: Process) -> str:
        return ""

    def exit_report_of(self, child: object, ending: Ending) -> ExitReport:
        return ExitReport()

    def wants(self, hook: str) -> bool:
        return False

    async def ask_policy(
        self,
        hook: str,
        child: object,
        *,
        problem: str = "",
        how: WorkerExit | None = None,
    ) -> str:
        return ""


NO_AFTERMATH: Final = _NoAftermath()


# A supervisor that was ready and died was most likely killed: restart it immediately.
# One that never becomes ready is retried for ever with a growing backoff: its failure
# must not take healthy workers down.
_SUPERVISOR_RULES: Final = RestartRules(
    backoff=Backoff(base=0.1, cap=30.0, stable_after=0.0), intensity=None
)
SUPERVISOR_PLAN: Final = ChildPlan(
    name=SUPERVISOR_NAME,
    service=SUPERVISOR_NAME,
    rules=_SUPERVISOR_RULES,
    stop=StopPlan(timeout=5.0),
    startup_timeout=60.0,
    health_check_timeout=30.0,
)
