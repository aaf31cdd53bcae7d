"""Watch the process of a child: its readiness, its deadlines, its exit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.controller.child.child_facts import ChildFacts
from trio_supervisor.controller.child.exit_messages import Fault, timeout_fault
from trio_supervisor.controller.child.policy_verdict import may_stay
from trio_supervisor.controller.child.process_state import ProcessState
from trio_supervisor.controller.events import (
    CrashLoopEnded,
    ProcessStarted,
    WorkerReady,
    WorkerUnready,
)
from trio_supervisor.policy.lifecycle import Event as Step
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.restart import Cause, lifetime
from trio_supervisor.process.child import Process
from trio_supervisor.process.notify.sd_notify import Notification
from trio_supervisor.tasks import open_nursery

# A process that requests its own restart runs at least this long, once ready [s].
_LEAST_RUN: Final = 1.0
# A deadline noticed this late means that the controller itself was suspended [s].
_SUSPENDED: Final = 1.0


@define(eq=False)
class ProcessWatch:
    """What the task that owns a child does while the process runs."""

    _child: ChildFacts
    heartbeat_age: Callable[[], float | None] = field(default=lambda: None, init=False)
    """Returns the age of the last heartbeat, from shared memory [s]."""
    observed: ProcessState = field(init=False)
    """Observed state of the last process."""
    is_watching: bool = field(default=False, init=False)
    """Whether a process is being watched."""
    _attended: trio.Event = field(factory=trio.Event, init=False)
    """Set each time the process has been checked."""
    _is_due_at: float = field(default=float("inf"), init=False)
    """Time at which the process exceeds its maximum lifetime."""
    _replace_at: float = field(default=float("inf"), init=False)
    """When the process is replaced because it has requested that."""
    _asked_reason: str | None = field(default=None, init=False)
    """Reason that it gave; None: it has not requested it."""
    _deadline: float = field(default=0.0, init=False)
    """Deadline that followed the latest heartbeat."""
    _wake_at: float = field(default=float("inf"), init=False)
    """When this task wants to wake next."""

    def __attrs_post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the last process: another one is about to be started."""
        self.observed = ProcessState(self._child.plan)
        self._is_due_at = self._replace_at = self._wake_at = float("inf")
        self._asked_reason = None

    def begin(self, process: Process) -> None:
        """Note that *process* has been started, and report it."""
        child, now = self._child, trio.current_time()
        child.process, child.last_process_id = process, process.pid
        self.observed.begin(now)
        child.started_at, child.start_seconds = time.monotonic(), None
        child.has_started = True
        child.history.started()
        if (longest := child.plan.max_lifetime) is not None:
            self._is_due_at = now + lifetime(longest, child.rng.random())
        child.watcher.on_event(
            ProcessStarted(
                name=child.name,
                process_id=process.pid,
                incarnation=child.incarnation,
                generation=child.plan.generation,
                is_repeat=child.is_repeating,
            )
        )
        child.tell()
        child.watcher.on_process(child, process, True)
        self.update_readiness()

    # Readiness.

    def update_readiness(self) -> None:
        """Update the state from the process's notifications and its probes."""
        child = self._child
        if child.process is None:
            return
        is_ready = self.observed.is_ready
        if is_ready and child.state in (State.STARTING, State.UNREADY):
            self._become_ready()
        elif not is_ready and child.state is State.READY:
            child.ready_at = None
            self.observed.unready_since = trio.current_time()
            event = WorkerUnready(
                name=child.name, process_id=child.process.pid, reason=child.status
            )
            child.watcher.on_event(event)
            child.step(Step.UNREADY)

    def _become_ready(self) -> None:
        child, observed, now = self._child, self.observed, trio.current_time()
        since = observed.unready_since
        if observed.first_ready is None:
            observed.first_ready, since = now, observed.began
            child.start_seconds = now - observed.began
            child.load_control.started(child)
            self._plan_replacement()
        elif since is not None:  # clear the status text of the unready phase
            child.status = ""
        child.ready_at = time.monotonic()
        if child.plan.says_ready or not child.plan.stable_for:
            self._say_ready(0.0 if since is None else now - since)
        observed.is_stable |= not child.plan.stable_for
        child.step(Step.READY)
        child.changed.set()

    def _become_stable(self) -> None:
        self.observed.is_stable = True
        if not self._child.plan.says_ready:
            self._say_ready(trio.current_time() - self.observed.began)
        self._child.tell()

    def _say_ready(self, seconds: float) -> None:
        child = self._child
        event = WorkerReady(
            name=child.name,
            process_id=child.last_process_id,
            seconds=seconds,
            is_repeat=child.is_repeating,
        )
        child.watcher.on_event(event)

    def notified(self, notification: Notification) -> None:
        """Handle what the process says of its readiness, and of a restart."""
        says = notification.is_ready or notification.is_unready
        if says and self._child.plan.notifies:
            self.observed.says_ready = notification.is_ready
            self.update_readiness()
        if notification.restart_reason is not None:
            self._request_restart(notification.restart_reason)

    def _request_restart(self, reason: str) -> None:
        """Handle that the process requests its own restart, also before it is ready.

        It is restarted when it has been ready for a second: one that requests it at
        once, again and again, does not take all of the processor.
        """
        if self._asked_reason is None:
            self._asked_reason = reason
            self._plan_replacement()

    def _plan_replacement(self) -> None:
        first = self.observed.first_ready
        if first is not None and self._asked_reason is not None:
            self._replace_at = max(trio.current_time(), first + _LEAST_RUN)
            self._child.changed.set()

    # Signs of life.

    def beat(self) -> None:
        """Handle a heartbeat that the process has sent."""
        is_first = self.observed.beat(trio.current_time())
        if is_first or self._child.crashes:  # health check begins, crash loop ends
            self._child.changed.set()

    def pass_liveness_probe(self) -> None:
        """Note that its liveness probe has begun or succeeded."""
        self.observed.alive_at = trio.current_time()
        if self._child.crashes:
            self._child.changed.set()  # a crash loop may be over

    def fail_probe(self, cause: Cause, fault: Fault) -> None:
        """Restart it because its startup or liveness probe failed."""
        self.observed.probe_failure, self.observed.fault = cause, fault
        self._child.changed.set()

    def lateness(self) -> float | None:
        """Return the elapsed fraction of its timeout; None: no deadline is set."""
        if not self.is_watching:
            return None
        self._read_heartbeat()
        deadline, cause = self.observed.deadline()
        if deadline == float("inf"):
            return None
        timeout = self.observed.timeout(cause)
        return 1 - (deadline - trio.current_time()) / timeout

    def _read_heartbeat(self) -> None:
        if (age := self.heartbeat_age()) is not None:
            self.observed.beat(trio.current_time() - age)

    async def wait_attended(self) -> None:
        """Wait until the owning task has checked the process, if there is one."""
        await trio.lowlevel.checkpoint()
        if self.is_watching:
            self._attended = attended = trio.Event()
            self._child.changed.set()
            await attended.wait()

    # The wait for a reason to end it.

    async def wait_cause(self, process: Process) -> Cause:
        """Wait until the process has exited or must be stopped; return the cause."""
        self.is_watching = True
        try:
            cause = await self._watch(process)
            while await may_stay(self._child, process, cause, self.observed):
                cause = await self._watch(process)
            return cause
        finally:
            self.is_watching = False
            self._attended.set()

    async def _watch(self, process: Process) -> Cause:
        async with open_nursery() as nursery:
            nursery.start_soon(self._wait_exit, process)
            if (prober := self._child.plan.prober) is not None:
                nursery.start_soon(prober, self._child, process)
            cause = await self._wait_cause(process)
            nursery.cancel_scope.cancel()
        return cause

    async def _wait_exit(self, process: Process) -> None:
        await process.wait()
        self._child.read_notifications()  # include those sent just before exit
        self._child.changed.set()

    async def _wait_cause(self, process: Process) -> Cause:
        while True:
            self._attended.set()
            if (known := self._known_cause(process)) is not None:
                return known
            if trio.current_time() >= self._is_due_at:
                self._is_due_at = float("inf")
                self._child.permission.on_lifetime_over(self._child)
                continue
            if trio.current_time() >= self._replace_at:
                self._replace_at = float("inf")
                reason = self._asked_reason or ""
                self._child.permission.on_restart_wanted(self._child, reason)
                continue
            if trio.current_time() >= self.observed.stable_at():
                self._become_stable()
            deadline, cause = self._next_deadline(process)
            well_at = self._check_crash_loop(process)
            if (now := trio.current_time()) >= deadline:
                if now - self._wake_at > _SUSPENDED and self.observed.may_sleep:
                    # The controller was suspended (SIGSTOP, host suspend): heartbeats
                    # sent in that time are still unread. Restart the full timeout.
                    self.observed.awake(now)
                    continue
                if (left := self._extra_time(process, deadline, cause)) <= 0:
                    return cause
                deadline = now + left
            await self._sleep_until(min(deadline, well_at))

    def _known_cause(self, process: Process) -> Cause | None:
        child, observed = self._child, self.observed
        if process.returncode is not None:
            return child.request or Cause.EXIT
        if child.request is not None:
            return child.request
        if observed.probe_failure is not None:
            child.fault = observed.fault
        return observed.probe_failure

    def _extra_time(self, process: Process, deadline: float, cause: Cause) -> float:
        """Return by how much to extend the missed deadline; 0: it is at fault [s]."""
        timeout = self.observed.timeout(cause)
        control = self._child.load_control
        left = control.extra_time(process.pid, deadline - timeout, timeout)
        if left <= 0:
            self._child.fault = timeout_fault(cause, timeout)
        return left

    async def _sleep_until(self, moment: float) -> None:
        """Sleep until *moment*, a change, or another reason to check the process."""
        child, observed = self._child, self.observed
        child.changed = trio.Event()
        again = trio.current_time() + observed.look_again
        due = min(self._is_due_at, self._replace_at)
        self._wake_at = min(moment, due, observed.stable_at(), again)
        with trio.move_on_at(self._wake_at):
            await child.changed.wait()

    def _next_deadline(self, process: Process) -> tuple[float, Cause]:
        """Return the next deadline of the process, and the cause if it is missed."""
        self._read_heartbeat()
        deadline, cause = self.observed.deadline()
        if trio.current_time() >= deadline:
            # A heartbeat may be in the socket, still unread.
            self._child.read_notifications()
            deadline, cause = self.observed.deadline()
        if deadline != self._deadline and self.observed.first_ready is not None:
            self._deadline = deadline
            self._child.load_control.heard_from(process.pid)
        return deadline, cause

    def _check_crash_loop(self, process: Process) -> float:
        """Mark a crash loop as ended if it is; return when to check again."""
        child = self._child
        now, stable_after = trio.current_time(), child.plan.rules.stable_after
        well_for = self.observed.well_for(now, has_hung=True)
        if not child.crashes or well_for is None:
            return float("inf")
        if well_for < stable_after:  # later, its notifications wake this task
            stable_at = now - well_for + stable_after
            return stable_at if stable_at > now else float("inf")
        if child.is_repeating:
            event = CrashLoopEnded(
                name=child.name,
                process_id=process.pid,
                crashes=child.crashes,
                seconds=well_for,
            )
            child.watcher.on_event(event)
        child.history.end_crash_loop()
        child.tell()
        return float("inf")
