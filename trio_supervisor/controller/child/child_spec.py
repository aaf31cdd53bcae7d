"""What a child is, and who is told of it and asked about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from attrs import field, frozen

from trio_supervisor.application import SUPERVISOR_NAME
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
"""Starts the incarnation of that number, or raises OSError."""
Prober: TypeAlias = Callable[[Any, Process], Awaitable[None]]
"""Asks a process from outside how it is, until cancelled, and tells its child."""
C_contra = TypeVar("C_contra", contravariant=True)


@frozen(kw_only=True)
class ChildPlan:
    """What a child is, and what is done with it."""

    name: str
    service: str
    generation: int = 1
    rules: RestartRules = field(factory=RestartRules)
    stop: StopPlan = field(factory=StopPlan)
    pre_stop: PreStop | None = None
    """What is done before it is asked to end."""
    startup_timeout: float | None = 60.0
    """[s]"""
    health_check_timeout: float | None = None
    """[s]"""
    max_lifetime: float | None = None
    """[s]"""
    stable_for: float = 0.0
    """How long it has to be ready before a caller is told that it is up [s]."""
    notifies: bool = True
    """Whether it says when it is ready; else it is ready once started, or probed."""
    prober: Prober | None = None
    """What else has to find it ready, and alive."""
    connects: bool = True
    """Whether it connects to the supervisor."""
    beats_from_ready: bool = True
    """Whether heartbeats are due from READY on, or only once the first one came."""
    needs: tuple[str, ...] = ()
    """What its service depends on, in words."""
    may: tuple[str, ...] = ()
    """What it may ask of the supervisor."""

    @property
    def says_ready(self) -> bool:
        """Whether anything but its start tells that it is ready."""
        return self.notifies or self.prober is not None

    def mark(self, incarnation: int) -> str:
        """Return by which descendants of that process can be told from all others."""
        return process_mark(self.name, self.generation, incarnation)


@frozen(kw_only=True)
class ExitReport:
    """What is left to say of a process that ended."""

    last_lines: tuple[str, ...] = ()
    """What it wrote at last."""
    last_line: str = ""
    """Of these, the one that most likely says why."""
    post_mortem: str = ""
    """The file with more of it; empty: there is none."""
    problem: str = ""
    """What is known to have ended it."""


class Watcher(Protocol[C_contra]):
    """What a child tells to the one that owns it."""

    def on_change(self, child: C_contra) -> None:
        """Something of what can be read off *child* changed."""
        ...

    def on_process(self, child: C_contra, process: Process, is_running: bool) -> None:
        """A process of *child* was started, or is gone with all of its group."""
        ...

    def on_event(self, event: Event) -> None:
        """Something happened that a person may want to know."""
        ...


class ChildHooks(Protocol[C_contra]):
    """What a child asks about the others, and of those around it."""

    def missing_needs_of(self, child: C_contra) -> str:
        """Return what keeps *child* from being started, in words; empty: nothing.

        `Child.check_again` has it asked again.
        """
        ...

    def review(self, child: C_contra, ending: Ending, decision: Decision) -> Decision:
        """Return what is really done after an unplanned *ending*."""
        ...

    def on_lifetime_over(self, child: C_contra) -> None:
        """*child* has lived for as long as it may."""
        ...

    async def stop_escaped(self, child: C_contra) -> None:
        """End what has left the group of the process of *child* that just ended."""
        ...

    async def dump_stacks(self, child: C_contra, process: Process, cause: str) -> None:
        """Look at a process that is about to be ended for *cause*; takes little."""
        ...

    async def find_cause(self, child: C_contra, process: Process) -> None:
        """Find out what ended *process* on its own, where what it printed says so."""
        ...

    def exit_report_of(self, child: C_contra, ending: Ending) -> ExitReport:
        """Return what is left to say of the process of *child* that just ended."""
        ...


class LoadControl(Protocol):
    """What a child asks before it has a process started, or a silent one stopped."""

    def heard_from(self, process_id: int) -> None:
        """Say that the process has given a sign of life."""
        ...

    def extra_time(self, process_id: int, since: float, timeout: float) -> float:
        """Return how long to wait yet for a sign of life [s]; 0: stop the process."""
        ...

    def admit(self, child: Any) -> str:
        """Return why *child* may not start yet, in words; empty: it may, now.

        `Child.check_again` has it asked again.
        """
        ...

    def started(self, child: Any) -> None:
        """Say that *child* is ready, has ended, or is not to start any more."""
        ...

    def measure(self, process_id: int) -> Callable[[float], float]:
        """Measure from now on what the process could have done.

        Returns what is called with a timeout [s], and returns what is left of it.
        """
        ...


class _NoLoadControl:
    """A timeout is a timeout."""

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


class _NoHooks:
    """The company of a child that depends on nobody."""

    def missing_needs_of(self, child: object) -> str:
        return ""

    def review(self, child: object, ending: Ending, decision: Decision) -> Decision:
        return decision

    def on_lifetime_over(self, child: Any) -> None:
        reason = lifetime_text(child.plan.max_lifetime)
        child.request_restart(reason, Cause.LIFETIME)

    async def stop_escaped(self, child: object) -> None:
        return

    async def dump_stacks(self, child: object, process: Process, cause: str) -> None:
        return

    async def find_cause(self, child: object, process: Process) -> None:
        return

    def exit_report_of(self, child: object, ending: Ending) -> ExitReport:
        return ExitReport()


NO_HOOKS: Final = _NoHooks()


# A supervisor that was ready and died was most likely killed: the next is immediate.
# One that never becomes ready is tried for ever, ever more slowly: its failing must
# not take healthy workers down.
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
