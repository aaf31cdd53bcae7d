"""Start, watch, stop and restart one child, in one task that owns it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.controller.child.child_facts import ChildFacts
from trio_supervisor.controller.child.exit_event import exit_event
from trio_supervisor.controller.child.exit_messages import (
    START_CANCELLED,
    Fault,
    next_step_text,
    restart_limit_text,
    restart_reason,
)
from trio_supervisor.controller.child.policy_verdict import verdict_on_exit
from trio_supervisor.controller.child.process_end import (
    announce_stop,
    end_process,
    report_not_permitted,
)
from trio_supervisor.controller.child.process_watch import ProcessWatch
from trio_supervisor.controller.events import RestartLimitReached
from trio_supervisor.errors import RestartLimitError
from trio_supervisor.policy.lifecycle import Event as Step
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.restart import (
    Cause,
    Decision,
    Ending,
    GiveUp,
    Leave,
    RestartAfter,
)
from trio_supervisor.process.child import Process, describe_exit
from trio_supervisor.process.notify.sd_notify import Notification
from trio_supervisor.process.shortage import shortage_of, text_of
from trio_supervisor.process.spawn.generation_code import CodeLostError

# Causes for which a stack dump is taken before the process is stopped.
_UNRESPONSIVE: Final = (Cause.UNHEALTHY, Cause.STARTUP_TIMEOUT, Cause.MONITOR)

_UP: Final = (State.READY, State.UNREADY)


@define(eq=False)
class Child(ChildFacts):
    """A child across all its incarnations; `run` is the task that owns it."""

    _watch: ProcessWatch = field(init=False)
    _is_gone: bool = field(default=False, init=False)
    """Whether it was retired and has exited; it is no longer reported."""
    _starting: trio.CancelScope | None = field(default=None, init=False)
    """Cancel scope of the start in progress."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._watch = ProcessWatch(self)

    @property
    def has_process(self) -> bool:
        """Whether it has a process or is about to have one."""
        return self.process is not None or self._starting is not None

    @property
    def is_stable(self) -> bool:
        """Whether it has been ready for ``stable_for`` seconds."""
        return self.state is State.READY and self._watch.observed.is_stable

    def lateness(self) -> float | None:
        """Return the elapsed fraction of its timeout; None: no deadline is set."""
        return self._watch.lateness()

    async def wait_attended(self) -> None:
        """Wait until the owning task has checked the process, if there is one.

        Wakes that task; if this call does not return, the task hangs.
        """
        await self._watch.wait_attended()

    # Requests from other tasks. All return immediately.

    def request_restart(self, reason: str = "", cause: Cause = Cause.RESTART) -> None:
        """Request a graceful restart, or a start if there is no process."""
        if not self.is_retired:
            if cause is Cause.RESTART:  # by hand
                self.history.end_crash_loop()
                self.is_paused = False
            self.is_wanted = True
            self._ask(cause, reason)

    def request_start(self) -> None:
        """Request a start if it is stopped, failed, or being stopped.

        During a backoff it starts immediately.
        """
        if not self.is_wanted or self.is_down or self.state is State.BACKOFF:
            if self.is_down and self.incarnation:
                self.why = "start requested"
            self.request_restart("start")

    def request_stop(self, reason: str = "", cause: Cause = Cause.STOP) -> None:
        """Request a stop; do not restart afterwards."""
        self.is_wanted, self.waiting_for = False, ""
        self.is_paused |= cause is Cause.STOP
        self._ask(cause, reason)

    def stay_stopped(self) -> None:
        """Keep it stopped when `run` begins, until a start is requested."""
        self.is_wanted = False

    def retire(self, cause: Cause, reason: str = "") -> None:
        """Stop it for good; `run` returns once the process has exited."""
        self.is_retired = True
        self.request_stop(reason, cause)

    def check_again(self) -> None:
        """Check again whether it may start."""
        if self.waiting_for:
            self.changed.set()
            self.wake()

    def reset_start(self, *, is_forgiven: bool) -> None:
        """Reset it for a group restart, as if it had never been started.

        Args:
            is_forgiven: Whether to reset its crash count as well.
        """
        if is_forgiven:
            self.history.reset_limit()
        self.has_started = False

    def mark_stopping(self) -> None:
        """Show it as stopping: its process has exited; the cause follows shortly."""
        if self.state is not State.STOPPING:
            self.step(Step.STOP)

    def _ask(self, cause: Cause, reason: str) -> None:
        if self._is_gone:  # a caller may hold a stale reference
            return
        self.request, self.request_reason = cause, reason
        if not self.is_wanted and self._starting is not None:
            self._starting.cancel()
        self.changed.set()
        self.tell()  # is_wanted is part of the status

    # What is heard of the process.

    def listen(
        self, hear: Callable[[], None], pulse: Callable[[], float | None]
    ) -> None:
        """Set how the current process is monitored.

        Args:
            hear: Reads pending notifications and calls `notified` with each.
            pulse: Returns the age of the last heartbeat [s]; None: no heartbeat yet.
        """
        self.read_notifications, self._watch.heartbeat_age = hear, pulse

    def notified(self, notification: Notification) -> None:
        """Handle a notification of the process."""
        if notification.is_heartbeat:
            self._watch.beat()
        if (status := notification.status) is not None and status != self.status:
            self.set_status(status)
        self._watch.notified(notification)

    def set_status(self, text: str) -> None:
        """Set the status text, replacing the one that the process last sent."""
        self.status = text
        self.tell()

    def set_probe_readiness(self, is_ready: bool) -> None:
        """Handle a result of its readiness probe."""
        self._watch.observed.is_probed_ready = is_ready
        self._watch.update_readiness()

    def pass_liveness_probe(self) -> None:
        """Note that its liveness probe has begun or succeeded."""
        self._watch.pass_liveness_probe()

    def fail_probe(self, cause: Cause, fault: Fault) -> None:
        """Restart it because its startup or liveness probe failed."""
        self._watch.fail_probe(cause, fault)

    # The owning task.

    async def run(self) -> None:
        """Run the process and restart it according to its restart rules.

        If cancelled, stops the process according to its plan before `trio.Cancelled`
        propagates: no process outlives the nursery that runs this task.

        Raises:
            RestartLimitError: the restart limit was reached.
        """
        while True:
            if self.is_wanted:
                await self._until_allowed()
            if self.is_wanted:
                self.request = None
                try:
                    ending, problem = await self._live()
                finally:
                    self.load_control.started(self)
                self.last_ending = ending
                if self.not_permitted:
                    self._leave_running()
                else:
                    await self._follow(ending, problem)
            elif self.is_retired:
                self._is_gone = True
                return
            else:
                await self._until_asked()

    async def _until_allowed(self) -> None:
        """Wait until its dependencies are available or it is no longer wanted."""
        while self.is_wanted and (obstacle := self._obstacle()):
            if self.state is not State.WAITING:
                self.waiting_for = obstacle
                self.step(Step.WAIT)
            elif obstacle != self.waiting_for:
                self.waiting_for = obstacle
                self.tell()
            self.changed = trio.Event()
            await self.changed.wait()
        self.waiting_for = ""
        if not self.is_wanted:
            self.load_control.started(self)
            if self.state is State.WAITING:
                self._settle_down()

    def _obstacle(self) -> str:
        if obstacle := self.permission.missing_needs_of(self):
            self.load_control.started(self)  # others must not queue behind it
            return obstacle
        return self.load_control.admit(self)

    async def _until_asked(self) -> None:
        self.request = None
        while self.request is None:
            self.changed = trio.Event()
            await self.changed.wait()
        if not self.is_wanted and self.state is State.FAILED:
            self._settle_down()

    def _settle_down(self) -> None:
        """Mark it as stopped; forget its last exit, so a job does not count as done."""
        self.last_ending = None
        self.step(Step.END)

    # One incarnation.

    async def _live(self) -> tuple[Ending, str]:
        """Run one incarnation; return how it ended, and why it did not start."""
        self.incarnation += 1
        self.not_permitted = ""
        self.status, self.ready_at = "", None
        self.fault, self.kill_reason = None, ""
        self._watch.reset()
        self.step(Step.SPAWN)
        try:
            process = await self._start()
        except (OSError, RuntimeError, MemoryError) as exc:
            return self._failed_start(exc)
        if process is None:
            return self._cancelled_start()
        cause = await self._run_process(process)
        ended_at = trio.current_time()
        if cause is Cause.EXIT and process.returncode not in self.plan.rules.success:
            self.kill_reason = await self.aftermath.find_cause(self, process)
            how = describe_exit(process.returncode, self.kill_reason)
            self.last_exit = self.not_permitted or how
        has_hung = cause is Cause.UNHEALTHY
        ready_for = self._watch.observed.well_for(ended_at, has_hung=has_hung)
        if self.request is not None:  # requested during the exit, so planned
            cause = self.request
        return self.plan.rules.ending(cause, process.returncode, ready_for), ""

    async def _start(self) -> Process | None:
        """Start the process; return None after a timeout or a stop request.

        A fork server whose import never finishes must not block this task.
        """
        timeout = self.plan.startup_timeout
        with trio.move_on_after(float("inf") if timeout is None else timeout) as scope:
            self._starting = scope
            try:
                return await self.spawn(self.incarnation)
            finally:
                self._starting = None
        return None

    def _failed_start(
        self, exc: OSError | RuntimeError | MemoryError
    ) -> tuple[Ending, str]:
        if (short := shortage_of(exc)) is None and not isinstance(exc, OSError):
            raise exc
        # Serve a request made during the stop immediately, without a backoff.
        is_lost = isinstance(exc, CodeLostError)
        cause = self.request or (
            Cause.NO_CODE if is_lost else Cause.SHORTAGE if short else Cause.SPAWN
        )
        failure = short or exc
        assert isinstance(failure, OSError)
        return self.plan.rules.ending(cause, None), text_of(failure)

    def _cancelled_start(self) -> tuple[Ending, str]:
        if self.request is not None:
            return self.plan.rules.ending(self.request, None), START_CANCELLED
        problem = f"not started after {self.plan.startup_timeout:g} s"
        self.fault = Fault(problem, "startup_timeout")
        return self.plan.rules.ending(Cause.STARTUP_TIMEOUT, None), str(self.fault)

    async def _run_process(self, process: Process) -> Cause:
        """Watch *process* until it exits or must be stopped, and stop it."""
        try:
            self._watch.begin(process)
            cause = await self._watch.wait_cause(process)
            if cause is Cause.UNHEALTHY and self.state in _UP:
                self.step(Step.SICKEN)
            if cause in _UNRESPONSIVE:
                self._watch.observed.was_dumped = True
                await self.aftermath.dump_stacks(self, process, cause.value)
            announce_stop(self, process, cause)
        finally:
            with trio.CancelScope(shield=True):
                await end_process(self, process, self._watch.observed)
        return cause

    def _leave_running(self) -> None:
        """Mark it as failed although its process still runs; start no second one."""
        self.is_wanted = False
        report_not_permitted(self)
        self.step(Step.FAIL)

    async def _follow(self, ending: Ending, problem: str) -> None:
        """Decide what follows *ending*, report it, and wait for the backoff."""
        decision, next_step = await self._decide(ending, problem)
        reason = self.request_reason
        self.why = restart_reason(ending, reason, self.fault, self.kill_reason)
        event = exit_event(self, ending, problem, decision, next_step)
        self.watcher.on_event(event)
        match decision:
            case RestartAfter(delay):
                await self._back_off(delay)
            case Leave():
                self.is_wanted = False
                self.step(Step.FAIL if ending.is_failure else Step.END)
            case GiveUp(problem=failure):
                self.step(Step.FAIL)
                how = describe_exit(ending.returncode, self.kill_reason)
                limit = restart_limit_text(self.plan.rules, ending, problem, how)
                self.watcher.on_event(
                    RestartLimitReached(name=self.name, problem=failure or limit)
                )
                raise RestartLimitError(failure or f"{self.name}: {limit}")

    async def _decide(self, ending: Ending, problem: str) -> tuple[Decision, str]:
        """Return what follows *ending*, and the same in words."""
        rules = self.plan.rules
        by_rules = decision = self.history.decide(
            rules, ending, now=trio.current_time(), u=self.rng.random()
        )
        is_by_policy = False
        if not ending.is_planned and ending.cause is not Cause.NO_CODE:
            by_rules = await verdict_on_exit(self, ending, problem, decision)
            is_by_policy = by_rules is not decision
            decision = self.permission.review(self, ending, by_rules)
            is_retry = isinstance(decision, RestartAfter)
            if is_retry and ending.cause is not Cause.SHORTAGE:
                self.last_crash = self.incarnation
        return decision, next_step_text(
            rules,
            ending,
            decision,
            reason=self.request_reason,
            is_overruled=not isinstance(by_rules, Leave),
            is_scheduled=self.plan.is_scheduled,
            is_by_policy=is_by_policy and decision is by_rules,
        )

    async def _back_off(self, delay: float) -> None:
        self.next_try_at = time.monotonic() + delay
        self.step(Step.RETRY)
        if delay or self.crashes > 1:  # no time is lost after a first crash
            with trio.move_on_after(delay):
                await self._until_asked()
        self.next_try_at = None
        if not self.is_wanted:
            self._settle_down()
