"""What is known of a child, and who is told when it changes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import trio
from attrs import define, evolve, field

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
    Fault,
    crash_text,
    trial_text,
)
from trio_supervisor.policy.condition import Condition
from trio_supervisor.policy.crash_text import describe_crashes
from trio_supervisor.policy.lifecycle import Event as Step
from trio_supervisor.policy.lifecycle import State, advance
from trio_supervisor.policy.order import Standing
from trio_supervisor.policy.restart import (
    CRASH_LOOP,
    Cause,
    Ending,
    RestartHistory,
)
from trio_supervisor.process.child import Process
from trio_supervisor.process.cleanup.stopping import StopDeadline
from trio_supervisor.wire.workers import CanaryStatus, ScheduleStatus


@define(eq=False)
class ChildFacts:
    """A child as others see it, across all its incarnations."""

    plan: ChildPlan
    spawn: Spawn
    """Starts the process; if replaced, the next incarnation uses the new one."""
    watcher: Watcher[Any]
    rng: random.Random
    stop_deadline: StopDeadline = field(factory=StopDeadline)
    read_notifications: Callable[[], None] = field(default=lambda: None)
    """Reads pending notifications and calls `Child.notified` with each."""
    loop_lag: Callable[[], float | None] = field(default=lambda: None, init=False)
    """Returns how late the event loop of its process is [s]; None: unknown."""
    permission: Permission[Any] = ALWAYS_PERMITTED
    aftermath: Aftermath[Any] = NO_AFTERMATH
    load_control: LoadControl = field(default=NO_LOAD_CONTROL, init=False)
    """Decides when it may start and how far a missed deadline is extended."""
    needs: tuple[str, ...] = field(init=False)
    """Names of its dependencies; a reload may change them."""

    state: State = field(default=State.STOPPED, init=False)
    is_wanted: bool = field(default=True, init=False)
    """Whether it should run, regardless of its current state."""
    has_started: bool = field(default=False, init=False)
    """Whether it has been started since it, or its group, was last reset."""
    is_retired: bool = field(default=False, init=False)
    """Whether it was replaced or removed, and is never started again."""
    last_ending: Ending | None = field(default=None, init=False)
    history: RestartHistory = field(factory=RestartHistory, init=False)

    # The process, or the last one.

    process: Process | None = field(default=None, init=False)
    last_process_id: int = field(default=0, init=False)
    """PID of the last process, for events after its exit."""
    incarnation: int = field(default=0, init=False)
    started_at: float | None = field(default=None, init=False)
    """Time on the system's monotonic clock [s]."""
    ready_at: float | None = field(default=None, init=False)
    """Time on the system's monotonic clock [s]."""
    start_seconds: float | None = field(default=None, init=False)
    """Time from the start of the process until it was first ready [s]."""
    status: str = field(default="", init=False)
    fault: Fault | None = field(default=None, init=False)
    """Why the process is being stopped, if no stop was requested."""
    kill_reason: str = field(default="", init=False)
    """Who sent a SIGKILL that the controller did not send; else empty."""

    # Between processes.

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
    last_crash: int = field(default=0, init=False)
    """Number of the latest incarnation that crashed and was restarted; 0: none."""

    is_paused: bool = field(default=False, init=False)
    """Whether a stop was requested, and no start since: its schedule pauses."""
    schedule: ScheduleStatus | None = field(default=None, init=False)
    """Its last run by a schedule, and the next."""
    canary: CanaryStatus | None = field(default=None, init=False)
    """While a reload compares it with the old workers of its service."""

    # What was requested of it.

    request: Cause | None = field(default=None, init=False)
    request_reason: str = field(default="", init=False)
    changed: trio.Event = field(factory=trio.Event, init=False)
    """Wakes the task that owns it."""
    _news: trio.Event = field(factory=trio.Event, init=False)
    """Wakes the tasks that wait for a state."""

    def __attrs_post_init__(self) -> None:
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
    def process_id(self) -> int | None:
        """PID of the process; None: there is none."""
        return None if self.process is None else self.process.pid

    @property
    def condition(self) -> Condition:
        """Its state and history, from which the properties below follow."""
        return Condition(self.state, self.is_wanted, self.has_started, self.last_ending)

    @property
    def is_down(self) -> bool:
        """Whether it has no process and is not going to start one on its own."""
        return self.condition.is_down

    @property
    def was_stopped(self) -> bool:
        """Whether a stop was requested, and no start since."""
        return self.condition.was_stopped

    @property
    def has_exited_for_good(self) -> bool:
        """Whether it exited without a stop request and is not restarted."""
        return self.condition.has_exited_for_good

    @property
    def standing(self) -> Standing:
        """Progress of its start, as its dependents see it."""
        if self.plan.is_scheduled and self.is_down:
            return Standing.EXITED_OK  # nothing to wait for, and nothing to restart
        return self.condition.standing

    @property
    def has_done_its_work(self) -> bool:
        """Whether it is a one-shot job that has finished."""
        return self.condition.has_done_its_work(self.plan.rules)

    @property
    def restarts(self) -> int:
        """Number of restarts: incarnations after the first."""
        return max(0, self.incarnation - 1)

    @property
    def crashes(self) -> int:
        """Number of consecutive crashes since it last ran stably."""
        return self.history.attempt

    @property
    def is_repeating(self) -> bool:
        """Whether it has crashed so often in a row that the log omits repeats."""
        return self.crashes > CRASH_LOOP

    @property
    def is_in_crash_loop(self) -> bool:
        """Whether dependents stop waiting for it, although it is retried."""
        tries = max(self.crashes, self.history.shortages)
        return tries >= CRASH_LOOP and self.state is State.BACKOFF

    @property
    def is_failing(self) -> bool:
        """Whether it is in a crash loop (even while running) or failed for good."""
        has_failed = self.state is State.FAILED and not self.not_permitted
        return has_failed or self.crashes >= CRASH_LOOP

    @property
    def runs(self) -> ScheduleStatus | None:
        """Its last run by a schedule, and the next, unless its schedule pauses."""
        if self.schedule is None or not self.is_paused:
            return self.schedule
        return evolve(self.schedule, next_run_at=None)

    def resume(self) -> None:
        """End the pause of its schedule, without a run now."""
        self.is_paused = False
        self.tell()

    @property
    def trouble(self) -> str:
        """Description of the last exit and of the number of crashes in a row."""
        return describe_crashes(
            crashes=self.crashes, last_exit=self.last_exit, reason=self.why
        )

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

    async def wait_state(self, *states: State, since: int = 0) -> State:
        """Wait until it is in one of *states*, in incarnation *since* or later."""
        while not (self.state in states and self.incarnation >= since):
            await self._news.wait()
        return self.state

    async def wait_news(self) -> None:
        """Wait until any of its public attributes changes."""
        await self._news.wait()

    # For the parts of the child alone.

    def step(self, step: Step) -> None:
        """Change the state, and tell all who are concerned."""
        self.state = advance(self.state, step)
        self.tell()

    def tell(self) -> None:
        """Tell the watcher, and all who wait, of a change."""
        self.wake()
        self.watcher.on_change(self)

    def wake(self) -> None:
        """Wake the tasks that wait for a change."""
        news, self._news = self._news, trio.Event()
        news.set()
