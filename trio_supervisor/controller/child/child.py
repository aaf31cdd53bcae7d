"""Start, watch, stop and restart one child, in one task that owns it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.controller.child.child_spec import (
    ALWAYS_PERMITTED,
    NO_AFTERMATH,
    NO_LOAD_CONTROL,
    Aftermath,
    ChildPlan,
    LoadControl,
    Permission,
    Spawn,
    Watcher,
)
from trio_supervisor.controller.child.exit_messages import (
    START_CANCELLED,
    Fault,
    crash_text,
    next_step_text,
    restart_limit_text,
    restart_reason,
    timeout_fault,
    trial_text,
)
from trio_supervisor.controller.child.process_state import ProcessState
from trio_supervisor.controller.events import (
    CrashLoopEnded,
    Event,
    ProcessExited,
    ProcessStarted,
    ProcessStopping,
    ProcessStuck,
    RestartLimitReached,
    SignalNotPermitted,
    StartFailed,
    WorkerReady,
    WorkerUnready,
)
from trio_supervisor.errors import RestartLimitError
from trio_supervisor.policy.crash_text import describe_crashes
from trio_supervisor.policy.lifecycle import Event as Step
from trio_supervisor.policy.lifecycle import State, advance
from trio_supervisor.policy.order import Standing
from trio_supervisor.policy.restart import (
    CRASH_LOOP,
    Cause,
    Decision,
    Ending,
    GiveUp,
    Leave,
    RestartAfter,
    RestartHistory,
    RestartPolicy,
    lifetime,
)
from trio_supervisor.process.child import Process, describe_exit
from trio_supervisor.process.cleanup.stopping import StopDeadline, stop
from trio_supervisor.process.notify.sd_notify import Notification
from trio_supervisor.process.shortage import shortage_of, text_of
from trio_supervisor.process.spawn.generation_code import CodeLostError
from trio_supervisor.tasks import open_nursery

# Interval of the warning while a killed process does not exit (D state) [s].
_STUCK_INTERVAL: Final = 10.0
# Causes for which a stack dump is taken before the process is stopped.
_UNRESPONSIVE: Final = (Cause.UNHEALTHY, Cause.STARTUP_TIMEOUT, Cause.MONITOR)
# A deadline noticed this late means that the controller itself was suspended [s].
_SUSPENDED: Final = 1.0


@define(eq=False)
class Child:
    """A child across all its incarnations; `run` is the task that owns it."""

    plan: ChildPlan
    spawn: Spawn
    """Starts the process; if replaced, the next incarnation uses the new one."""
    _watcher: Watcher[Child]
    _rng: random.Random
    stop_deadline: StopDeadline = field(factory=StopDeadline)
    _read_notifications: Callable[[], None] = field(default=lambda: None)
    """Reads pending notifications and calls `notified` with each."""
    _heartbeat_age: Callable[[], float | None] = field(default=lambda: None, init=False)
    """Returns the age of the last heartbeat, from shared memory [s]."""
    _permission: Permission[Child] = ALWAYS_PERMITTED
    _aftermath: Aftermath[Child] = NO_AFTERMATH
    state: State = field(default=State.STOPPED, init=False)
    process: Process | None = field(default=None, init=False)
    incarnation: int = field(default=0, init=False)
    started_at: float | None = field(default=None, init=False)
    """Time on the system's monotonic clock [s]."""
    ready_at: float | None = field(default=None, init=False)
    """Time on the system's monotonic clock [s]."""
    status: str = field(default="", init=False)
    last_exit: str = field(default="", init=False)
    last_line: str = field(default="", init=False)
    """Last output line of the previous incarnation."""
    problem: str = field(default="", init=False)
    """Known cause of the previous incarnation's exit."""
    next_try_at: float | None = field(default=None, init=False)
    """Time of the next restart, on the system's monotonic clock [s]."""
    waiting_for: str = field(default="", init=False)
    """Description of what the start is waiting for."""
    why: str = field(default="", init=False)
    """Reason for the last restart; may be empty."""
    not_permitted: str = field(default="", init=False)
    """Processes that could not be stopped because they run as another user."""
    last_ending: Ending | None = field(default=None, init=False)
    last_crash: int = field(default=0, init=False)
    """Number of the latest incarnation that crashed and was restarted; 0: none."""
    _has_started: bool = field(default=False, init=False)
    """Whether it has been started since it, or its group, was last reset."""
    _is_retired: bool = field(default=False, init=False)
    _is_gone: bool = field(default=False, init=False)
    """Whether it was retired and has exited; it is no longer reported."""
    _is_watching: bool = field(default=False, init=False)
    """Whether the owning task is watching a process."""
    _attended: trio.Event = field(factory=trio.Event, init=False)
    """Set each time the owning task has checked the process."""
    _observed: ProcessState = field(init=False)
    """Observed state of the last process."""
    _is_due_at: float = field(default=float("inf"), init=False)
    """Time at which the process exceeds its maximum lifetime."""
    _is_wanted: bool = field(default=True, init=False)
    _request: Cause | None = field(default=None, init=False)
    _reason: str = field(default="", init=False)
    _fault: Fault | None = field(default=None, init=False)
    """Why the process is being stopped, if no stop was requested."""
    _kill_reason: str = field(default="", init=False)
    """Who sent a SIGKILL that the controller did not send; else empty."""
    _changed: trio.Event = field(factory=trio.Event, init=False)
    """Wakes the owning task."""
    _news: trio.Event = field(factory=trio.Event, init=False)
    """Wakes the tasks that wait for a state."""
    _history: RestartHistory = field(factory=RestartHistory, init=False)
    _starting: trio.CancelScope | None = field(default=None, init=False)
    """Cancel scope of the start in progress."""
    _process_id: int = field(default=0, init=False)
    """PID of the last process, for events after its exit."""

    load_control: LoadControl = field(default=NO_LOAD_CONTROL, init=False)
    """Decides when it may start and how far a missed deadline is extended."""
    _deadline: float = field(default=0.0, init=False)
    """Deadline that followed the latest heartbeat."""
    needs: tuple[str, ...] = field(init=False)
    """Names of its dependencies; a reload may change them."""

    def __attrs_post_init__(self) -> None:
        self._observed = ProcessState(self.plan)
        self.needs = self.plan.needs

    @property
    def name(self) -> str:
        """Name of the worker: ``service.index``."""
        return self.plan.name

    @property
    def service(self) -> str:
        """Name of its service."""
        return self.plan.service

    @property
    def is_wanted(self) -> bool:
        """Whether it should run, regardless of its current state."""
        return self._is_wanted

    @property
    def restarts(self) -> int:
        """Number of restarts: incarnations after the first."""
        return max(0, self.incarnation - 1)

    @property
    def crashes(self) -> int:
        """Number of consecutive crashes since it last ran stably."""
        return self._history.attempt

    @property
    def is_repeating(self) -> bool:
        """Whether it has crashed so often in a row that the log omits repeats."""
        return self.crashes > CRASH_LOOP

    @property
    def is_in_crash_loop(self) -> bool:
        """Whether dependents stop waiting for it, although it is retried."""
        tries = max(self.crashes, self._history.shortages)
        return tries >= CRASH_LOOP and self.state is State.BACKOFF

    @property
    def is_failing(self) -> bool:
        """Whether it is in a crash loop (even while running) or failed for good."""
        has_failed = self.state is State.FAILED and not self.not_permitted
        return has_failed or self.crashes >= CRASH_LOOP

    @property
    def trouble(self) -> str:
        """Description of the last exit and of the number of crashes in a row."""
        return describe_crashes(
            crashes=self.crashes, last_exit=self.last_exit, reason=self.why
        )

    @property
    def is_down(self) -> bool:
        """Whether it has no process and is not going to start one on its own."""
        return self.state in (State.STOPPED, State.FAILED)

    @property
    def was_stopped(self) -> bool:
        """Whether a stop was requested, and no start since."""
        return not (self._is_wanted or self.has_exited_for_good)

    @property
    def has_exited_for_good(self) -> bool:
        """Whether it exited without a stop request and is not restarted."""
        ending = self.last_ending
        return self.is_down and ending is not None and not ending.is_planned

    @property
    def is_stable(self) -> bool:
        """Whether it has been ready for ``stable_for`` seconds."""
        return self.state is State.READY and self._observed.is_stable

    @property
    def standing(self) -> Standing:
        """Progress of its start, as its dependents see it."""
        if not (self._is_wanted or self.is_down):
            return Standing.NOT_STARTED  # exiting: dependents must not start
        if self.state is State.READY:
            return Standing.READY
        if self.state is State.FAILED:
            return Standing.FAILED if self._has_started else Standing.NOT_STARTED
        if self.state is State.STOPPED and not self.has_exited_for_good:
            return Standing.NOT_STARTED
        if self.state is State.STOPPED and not self._is_wanted:
            return Standing.EXITED_OK
        return Standing.STARTED if self._has_started else Standing.NOT_STARTED

    @property
    def has_done_its_work(self) -> bool:
        """Whether it is a one-shot job that has finished.

        A worker that should run for ever never counts, regardless of its exit code.
        """
        if self.standing is not Standing.EXITED_OK or self.last_ending is None:
            return False
        rules = self.plan.rules
        is_last = self.last_ending.returncode in rules.give_up_on
        return is_last or rules.policy is not RestartPolicy.ALWAYS

    @property
    def crash_text(self) -> str:
        """Description of its exit before it was up."""
        plan = self.plan
        return crash_text(plan.name, plan.stable_for, self.last_ending, self.last_exit)

    @property
    def trial_text(self) -> str:
        """Description of its exit as a worker of a new generation."""
        plan, ending = self.plan, self.last_ending
        return trial_text(plan.name, plan.stable_for, ending, self.last_exit, self.why)

    @property
    def is_retired(self) -> bool:
        """Whether it was replaced or removed, and is never started again."""
        return self._is_retired

    # Requests from other tasks. All return immediately.

    def request_restart(self, reason: str = "", cause: Cause = Cause.RESTART) -> None:
        """Request a graceful restart, or a start if there is no process."""
        if not self._is_retired:
            if cause is Cause.RESTART:  # by hand
                self._history.end_crash_loop()
            self._is_wanted = True
            self._ask(cause, reason)

    def request_stop(self, reason: str = "", cause: Cause = Cause.STOP) -> None:
        """Request a stop; do not restart afterwards."""
        self._is_wanted = False
        self._ask(cause, reason)

    def stay_stopped(self) -> None:
        """Keep it stopped when `run` begins, until a start is requested."""
        self._is_wanted = False

    def retire(self, cause: Cause, reason: str = "") -> None:
        """Stop it for good; `run` returns once the process has exited."""
        self._is_retired = True
        self.request_stop(reason, cause)

    def check_again(self) -> None:
        """Check again whether it may start."""
        if self.waiting_for:
            self._changed.set()
            self._wake()

    def reset_start(self, *, is_forgiven: bool) -> None:
        """Reset it for a group restart, as if it had never been started.

        Args:
            is_forgiven: Whether to reset its crash count as well.
        """
        if is_forgiven:
            self._history.reset_limit()
        self._has_started = False

    def request_start(self) -> None:
        """Request a start if it is stopped, failed, or being stopped.

        During a backoff it starts immediately.
        """
        if not self._is_wanted or self.is_down or self.state is State.BACKOFF:
            if self.is_down and self.incarnation:
                self.why = "start requested"
            self.request_restart("start")

    def listen(
        self, hear: Callable[[], None], pulse: Callable[[], float | None]
    ) -> None:
        """Set how the current process is monitored.

        Args:
            hear: Reads pending notifications and calls `notified` with each.
            pulse: Returns the age of the last heartbeat [s]; None: no heartbeat yet.
        """
        self._read_notifications, self._heartbeat_age = hear, pulse

    def notified(self, notification: Notification) -> None:
        """Handle a notification of the process."""
        if notification.is_heartbeat:
            is_first = self._observed.beat(trio.current_time())
            if is_first or self.crashes:  # the health check begins, a crash loop ends
                self._changed.set()
        if (status := notification.status) is not None and status != self.status:
            self.status = status
            self._tell()
        if notification.is_ready and self.plan.notifies:
            self._observed.says_ready = True
            self._update_readiness()
        elif notification.is_unready and self.plan.notifies:
            self._observed.says_ready = False
            self._update_readiness()

    def set_status(self, text: str) -> None:
        """Set the status text, replacing the one that the process last sent."""
        self.status = text
        self._tell()

    def set_probe_readiness(self, is_ready: bool) -> None:
        """Handle a result of its readiness probe."""
        self._observed.set_probe_readiness = is_ready
        self._update_readiness()

    def pass_liveness_probe(self) -> None:
        """Note that its liveness probe has begun or succeeded."""
        self._observed.alive_at = trio.current_time()
        if self.crashes:
            self._changed.set()  # a crash loop may be over

    def fail_probe(self, cause: Cause, fault: Fault) -> None:
        """Restart it because its startup or liveness probe failed."""
        self._observed.probe_failure, self._observed.fault = cause, fault
        self._changed.set()

    def mark_stopping(self) -> None:
        """Show it as stopping: its process has exited; the cause follows shortly."""
        if self.state is not State.STOPPING:
            self._step(Step.STOP)

    async def wait_state(self, *states: State, since: int = 0) -> State:
        """Wait until it is in one of *states*, in incarnation *since* or later."""
        while not (self.state in states and self.incarnation >= since):
            await self._news.wait()
        return self.state

    async def wait_attended(self) -> None:
        """Wait until the owning task has checked the process, if there is one.

        Wakes that task; if this call does not return, the task hangs.
        """
        await trio.lowlevel.checkpoint()
        if self._is_watching:
            self._attended = attended = trio.Event()
            self._changed.set()
            await attended.wait()

    @property
    def has_process(self) -> bool:
        """Whether it has a process or is about to have one."""
        return self.process is not None or self._starting is not None

    async def wait_no_process(self) -> None:
        """Wait until it has no process."""
        while self.has_process:
            await self._news.wait()

    async def wait_news(self) -> None:
        """Wait until any of its public attributes changes."""
        await self._news.wait()

    # The owning task.

    async def run(self) -> None:
        """Run the process and restart it according to its restart rules.

        If cancelled, stops the process according to its plan before `trio.Cancelled`
        propagates: no process outlives the nursery that runs this task.

        Raises:
            RestartLimitError: the restart limit was reached.
        """
        while True:
            if self._is_wanted:
                await self._until_allowed()
            if self._is_wanted:
                self._request = None
                try:
                    ending, problem = await self._live()
                finally:
                    self.load_control.started(self)
                self.last_ending = ending
                if self.not_permitted:
                    self._leave_running()
                else:
                    await self._follow(ending, problem)
            elif self._is_retired:
                self._is_gone = True
                return
            else:
                await self._until_asked()

    async def _live(self) -> tuple[Ending, str]:
        """Run one incarnation until its process has exited."""
        self.incarnation += 1
        self.not_permitted = ""
        self.status, self.ready_at = "", None
        self._observed = ProcessState(self.plan)
        self._fault, self._kill_reason = None, ""
        self._step(Step.SPAWN)
        try:
            process = await self._start()
        except (OSError, RuntimeError, MemoryError) as exc:
            if (short := shortage_of(exc)) is None and not isinstance(exc, OSError):
                raise
            # Serve a request made during the stop immediately, without a backoff.
            is_lost = isinstance(exc, CodeLostError)
            cause = self._request or (
                Cause.NO_CODE if is_lost else Cause.SHORTAGE if short else Cause.SPAWN
            )
            failure = short or exc
            assert isinstance(failure, OSError)
            problem = text_of(failure)
            return self.plan.rules.ending(cause, None), problem
        if process is None:
            cause = self._request or Cause.STARTUP_TIMEOUT
            is_late = self._request is None
            problem = START_CANCELLED
            if is_late:
                self._fault = Fault(
                    f"not started after {self.plan.startup_timeout:g} s",
                    "startup_timeout",
                )
                problem = str(self._fault)
            return self.plan.rules.ending(cause, None), problem
        cause = Cause.EXIT
        try:
            self._begin(process)
            cause = await self._watch(process)
            if cause in _UNRESPONSIVE:
                self._mark_unhealthy(cause)
                self._observed.was_dumped = True
                await self._aftermath.dump_stacks(self, process, cause.value)
            self._announce_stop(process, cause)
        finally:
            with trio.CancelScope(shield=True):
                await self._end(process)
        ended_at = trio.current_time()
        if cause is Cause.EXIT and process.returncode not in self.plan.rules.success:
            self._kill_reason = await self._aftermath.find_cause(self, process)
            self.last_exit = self.not_permitted or describe_exit(
                process.returncode, self._kill_reason
            )
        ready_for = self._observed.well_for(ended_at, has_hung=cause is Cause.UNHEALTHY)
        if self._request is not None:  # requested during the exit, so planned
            cause = self._request
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

    def _begin(self, process: Process) -> None:
        self.process = process
        self._process_id = process.pid
        now = trio.current_time()
        self._observed.begin(now)
        self.started_at = time.monotonic()
        self._has_started = True
        self._history.started()
        if (longest := self.plan.max_lifetime) is not None:
            self._is_due_at = now + lifetime(longest, self._rng.random())
        self._watcher.on_event(
            ProcessStarted(
                name=self.name,
                process_id=process.pid,
                incarnation=self.incarnation,
                generation=self.plan.generation,
                is_repeat=self.is_repeating,
            )
        )
        self._tell()
        self._watcher.on_process(self, process, True)
        self._update_readiness()

    async def _watch(self, process: Process) -> Cause:
        """Wait until the process has exited or must be stopped; return the cause."""
        self._is_watching = True
        try:
            return await self._watch_over(process)
        finally:
            self._is_watching = False
            self._attended.set()

    async def _watch_over(self, process: Process) -> Cause:
        async with open_nursery() as nursery:
            nursery.start_soon(self._await_exit, process)
            if self.plan.prober is not None:
                nursery.start_soon(self.plan.prober, self, process)
            cause = await self._await_cause(process)
            nursery.cancel_scope.cancel()
        return cause

    async def _await_exit(self, process: Process) -> None:
        await process.wait()
        self._read_notifications()  # include notifications sent just before exit
        self._changed.set()

    async def _await_cause(self, process: Process) -> Cause:
        wake_at = float("inf")
        while True:
            self._attended.set()
            if process.returncode is not None:
                return self._request or Cause.EXIT
            if self._request is not None:
                return self._request
            if self._observed.probe_failure is not None:
                self._fault = self._observed.fault
                return self._observed.probe_failure
            if trio.current_time() >= self._is_due_at:
                self._is_due_at = float("inf")
                self._permission.on_lifetime_over(self)
                continue
            if trio.current_time() >= self._observed.stable_at():
                self._become_stable()
            deadline, cause = self._next_deadline(process)
            well_at = self._check_crash_loop(process)
            now = trio.current_time()
            if now >= deadline:
                if now - wake_at > _SUSPENDED and self._observed.may_sleep:
                    # The controller was suspended (SIGSTOP, host suspend): heartbeats
                    # sent in that time are still unread. Restart the full timeout.
                    self._observed.awake(now)
                    continue
                timeout = self._observed.timeout(cause)
                left = self.load_control.extra_time(
                    process.pid, deadline - timeout, timeout
                )
                if left <= 0:
                    self._fault = timeout_fault(cause, timeout)
                    return cause
                deadline = now + left
            self._changed = trio.Event()
            look = now + self._observed.look_again
            stable = self._observed.stable_at()
            wake_at = min(deadline, self._is_due_at, stable, well_at, look)
            with trio.move_on_at(wake_at):
                await self._changed.wait()

    def _next_deadline(self, process: Process) -> tuple[float, Cause]:
        """Return the next deadline of the process, and the cause if it is missed."""
        self._read_heartbeat()
        deadline, cause = self._observed.deadline()
        if trio.current_time() >= deadline:
            # A heartbeat may be in the socket, still unread.
            self._read_notifications()
            deadline, cause = self._observed.deadline()
        if deadline != self._deadline and self._observed.first_ready is not None:
            self._deadline = deadline
            self.load_control.heard_from(process.pid)
        return deadline, cause

    @property
    def process_id(self) -> int | None:
        """PID of the process; None: there is none."""
        return None if self.process is None else self.process.pid

    def lateness(self) -> float | None:
        """Return the elapsed fraction of its timeout; None: no deadline is set."""
        if not self._is_watching:
            return None
        self._read_heartbeat()
        deadline, cause = self._observed.deadline()
        if deadline == float("inf"):
            return None
        timeout = self._observed.timeout(cause)
        return 1 - (deadline - trio.current_time()) / timeout

    def _read_heartbeat(self) -> None:
        if (age := self._heartbeat_age()) is not None:
            self._observed.beat(trio.current_time() - age)

    def _check_crash_loop(self, process: Process) -> float:
        """Mark a crash loop as ended if it is; return when to check again."""
        now, stable_after = trio.current_time(), self.plan.rules.stable_after
        well_for = self._observed.well_for(now, has_hung=True)
        if not self.crashes or well_for is None:
            return float("inf")
        if well_for < stable_after:  # later, its notifications wake this task
            stable_at = now - well_for + stable_after
            return stable_at if stable_at > now else float("inf")
        if self.is_repeating:
            event = CrashLoopEnded(
                name=self.name,
                process_id=process.pid,
                crashes=self.crashes,
                seconds=well_for,
            )
            self._watcher.on_event(event)
        self._history.end_crash_loop()
        self._tell()
        return float("inf")

    def _announce_stop(self, process: Process, cause: Cause) -> None:
        if process.returncode is not None:
            if not process.is_gone:  # the rest of its process group is stopped first
                self._step(Step.STOP)
            return
        self._step(Step.STOP)
        fault = self._fault
        self._watcher.on_event(
            ProcessStopping(
                name=self.name,
                process_id=process.pid,
                cause=cause.value,
                reason=self._reason if cause is self._request else "",
                problem="" if fault is None else fault.problem,
                setting="" if fault is None else fault.setting,
                is_repeat=cause is not self._request and self.is_repeating,
            )
        )

    def _mark_unhealthy(self, cause: Cause) -> None:
        if cause is Cause.UNHEALTHY and self.state in (State.READY, State.UNREADY):
            self._step(Step.SICKEN)

    async def _end(self, process: Process) -> None:
        """Stop the rest of the process and its process group, and reap it."""
        async with open_nursery() as nursery:
            nursery.start_soon(self._complain, process)
            left = await stop(
                process,
                self.plan.stop,
                self.stop_deadline,
                self.plan.pre_stop,
                self._before_kill,
            )
            if self.plan.stop.kill_mode == "group":
                await self._aftermath.stop_escaped(self)
            nursery.cancel_scope.cancel()
        self.not_permitted = ", ".join(map(str, left))
        self.last_exit = self.not_permitted or describe_exit(process.returncode)
        self._is_due_at = float("inf")
        self.process = None
        self.started_at = self.ready_at = None
        self._watcher.on_process(self, process, False)
        process.close()

    async def _before_kill(self, process: Process) -> None:
        is_news = process.returncode is None and not self._observed.was_dumped
        if is_news and not self.stop_deadline.has_expired:
            await self._aftermath.dump_stacks(self, process, "stop_timeout")

    async def _complain(self, process: Process) -> None:
        began = trio.current_time()
        await trio.sleep(self.plan.stop.timeout)
        while True:
            await trio.sleep(_STUCK_INTERVAL)
            seconds = trio.current_time() - began
            event = ProcessStuck(
                name=self.name,
                process_id=process.pid,
                seconds=seconds,
                remaining=process.describe_remaining(),
            )
            self._watcher.on_event(event)

    def _leave_running(self) -> None:
        """Mark it as failed although its process still runs; start no second one."""
        self._is_wanted = False
        self._watcher.on_event(
            SignalNotPermitted(
                name=self.name,
                process_id=self._process_id,
                problem=self.not_permitted,
            )
        )
        self._step(Step.FAIL)

    async def _follow(self, ending: Ending, problem: str) -> None:
        """Decide what follows *ending*, report it, and wait for the backoff."""
        by_rules = decision = self._history.decide(
            self.plan.rules, ending, now=trio.current_time(), u=self._rng.random()
        )
        if not ending.is_planned and ending.cause is not Cause.NO_CODE:
            decision = self._permission.review(self, ending, decision)
            if (
                isinstance(decision, RestartAfter)
                and ending.cause is not Cause.SHORTAGE
            ):
                self.last_crash = self.incarnation
        self.why = restart_reason(ending, self._reason, self._fault, self._kill_reason)
        next_step = next_step_text(
            self.plan.rules,
            ending,
            decision,
            reason=self._reason,
            is_overruled=not isinstance(by_rules, Leave),
        )
        self._watcher.on_event(self._event_of(ending, problem, decision, next_step))
        match decision:
            case RestartAfter(delay):
                self.next_try_at = time.monotonic() + delay
                self._step(Step.RETRY)
                with trio.move_on_after(delay):
                    await self._until_asked()
                self.next_try_at = None
                if not self._is_wanted:
                    self._settle_down()
            case Leave():
                self._is_wanted = False
                self._step(Step.FAIL if ending.is_failure else Step.END)
            case GiveUp(problem=failure):
                self._step(Step.FAIL)
                limit = restart_limit_text(
                    self.plan.rules, ending, problem, self._ended_how(ending)
                )
                self._watcher.on_event(
                    RestartLimitReached(name=self.name, problem=failure or limit)
                )
                raise RestartLimitError(failure or f"{self.name}: {limit}")

    def _ended_how(self, ending: Ending) -> str:
        return describe_exit(ending.returncode, self._kill_reason)

    def _event_of(
        self, ending: Ending, problem: str, decision: Decision, next_step: str
    ) -> Event:
        is_retry = isinstance(decision, RestartAfter)
        is_short = is_retry and ending.cause is Cause.SHORTAGE
        is_crash = is_retry and not (ending.is_planned or is_short)
        crashes = self.crashes if is_crash else 0
        is_repeat = is_crash and not self._history.should_report(trio.current_time())
        if ending.returncode is None:
            self.last_exit, self.last_line, self.problem = problem, "", ""
            return StartFailed(
                name=self.name,
                problem=problem,
                next_step=next_step,
                crashes=crashes,
                is_repeat=is_repeat or is_short,
                is_shortage=is_short,
                is_cancelled=problem == START_CANCELLED,
            )
        report = self._aftermath.exit_report_of(self, ending)
        self.last_line = report.last_line
        self.problem = report.problem
        return ProcessExited(
            name=self.name,
            process_id=self._process_id,
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

    def _update_readiness(self) -> None:
        """Update the readiness from its notifications and probes."""
        if self.process is None:
            return
        is_ready = self._observed.is_ready
        if is_ready and self.state in (State.STARTING, State.UNREADY):
            self._become_ready()
        elif not is_ready and self.state is State.READY:
            self.ready_at = None
            self._observed.unready_since = trio.current_time()
            event = WorkerUnready(
                name=self.name, process_id=self.process.pid, reason=self.status
            )
            self._watcher.on_event(event)
            self._step(Step.UNREADY)

    def _become_ready(self) -> None:
        assert self.process is not None
        now = trio.current_time()
        since = self._observed.unready_since
        if self._observed.first_ready is None:
            self._observed.first_ready, since = now, self._observed.began
            self.load_control.started(self)
        elif since is not None:  # clear the status text of the unready phase
            self.status = ""
        self.ready_at = time.monotonic()
        if self.plan.says_ready or not self.plan.stable_for:
            self._say_ready(0.0 if since is None else now - since)
        self._observed.is_stable |= not self.plan.stable_for
        self._step(Step.READY)
        self._changed.set()

    def _become_stable(self) -> None:
        self._observed.is_stable = True
        if not self.plan.says_ready:
            self._say_ready(trio.current_time() - self._observed.began)
        self._tell()

    def _say_ready(self, seconds: float) -> None:
        assert self.process is not None
        pid = self.process.pid
        event = WorkerReady(
            name=self.name,
            process_id=pid,
            seconds=seconds,
            is_repeat=self.is_repeating,
        )
        self._watcher.on_event(event)

    async def _until_allowed(self) -> None:
        """Wait until its dependencies are available or it is no longer wanted."""
        while self._is_wanted and (obstacle := self._obstacle()):
            if self.state is not State.WAITING:
                self.waiting_for = obstacle
                self._step(Step.WAIT)
            elif obstacle != self.waiting_for:
                self.waiting_for = obstacle
                self._tell()
            self._changed = trio.Event()
            await self._changed.wait()
        self.waiting_for = ""
        if not self._is_wanted:
            self.load_control.started(self)
            if self.state is State.WAITING:
                self._settle_down()

    def _obstacle(self) -> str:
        if obstacle := self._permission.missing_needs_of(self):
            self.load_control.started(self)  # others must not queue behind it
            return obstacle
        return self.load_control.admit(self)

    async def _until_asked(self) -> None:
        self._request = None
        while self._request is None:
            self._changed = trio.Event()
            await self._changed.wait()
        if not self._is_wanted and self.state is State.FAILED:
            self._settle_down()

    def _settle_down(self) -> None:
        """Mark it as stopped; forget its last exit, so a job does not count as done."""
        self.last_ending = None
        self._step(Step.END)

    def _ask(self, cause: Cause, reason: str) -> None:
        if self._is_gone:  # a caller may hold a stale reference
            return
        self._request, self._reason = cause, reason
        if not self._is_wanted and self._starting is not None:
            self._starting.cancel()
        self._changed.set()
        self._tell()  # is_wanted is part of the status

    def _step(self, step: Step) -> None:
        self.state = advance(self.state, step)
        self._tell()

    def _tell(self) -> None:
        self._wake()
        self._watcher.on_change(self)

    def _wake(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()
