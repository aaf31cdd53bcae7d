"""One task that owns one child: start it, watch it, end it, decide, start it again."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias

import trio
from attrs import define, field, frozen

from trio_supervisor.controller.events import (
    Event,
    Exited,
    GaveUp,
    NotStarted,
    Ready,
    Started,
    Stopping,
    Stuck,
)
from trio_supervisor.errors import RestartLimitError
from trio_supervisor.policy.lifecycle import Event as Step
from trio_supervisor.policy.lifecycle import State, advance
from trio_supervisor.policy.restart import (
    Cause,
    Decision,
    Ending,
    GiveUp,
    Leave,
    Restart,
    RestartHistory,
    RestartRules,
)
from trio_supervisor.process.child import Process, describe_exit
from trio_supervisor.process.notify import Notification
from trio_supervisor.process.stopping import Patience, StopPlan, stop

# Said again this often while the kernel does not let a killed process go.
_STUCK_INTERVAL: Final = 10.0
# A deadline noticed so much too late says nothing about the process [s].
_SUSPENDED: Final = 1.0

Spawn: TypeAlias = Callable[[int], Awaitable[Process]]
"""Starts the incarnation of that number, or raises OSError."""


@frozen(kw_only=True)
class ChildPlan:
    """What a child is, and what is done with it."""

    name: str
    service: str
    rules: RestartRules = field(factory=RestartRules)
    stop: StopPlan = field(factory=StopPlan)
    startup_timeout: float | None = 60.0
    """[s]"""
    health_check_timeout: float | None = None
    """[s]"""
    notifies: bool = True
    """Whether it says when it is ready; else it is ready once started."""
    connects: bool = True
    """Whether it connects to the supervisor."""
    beats_from_ready: bool = True
    """Whether heartbeats are due from READY on, or only once the first one came."""


class Watcher(Protocol):
    """What a child tells to the one that owns it."""

    def on_change(self, child: Child) -> None:
        """Something of what can be read off *child* changed."""
        ...

    def on_process(self, child: Child, process: Process, is_running: bool) -> None:
        """A process of *child* was started, or is gone with all of its group."""
        ...

    def on_event(self, event: Event) -> None:
        """Something happened that a person may want to know."""
        ...


@define(eq=False)
class Child:
    """One child over all of its incarnations; `run` is the task that owns it."""

    plan: ChildPlan
    _spawn: Spawn
    _watcher: Watcher
    _rng: random.Random
    patience: Patience = field(factory=Patience)
    _hear: Callable[[], None] = field(default=lambda: None)
    """Has `notified` called with what was said already, and is still unread."""
    state: State = field(default=State.STOPPED, init=False)
    process: Process | None = field(default=None, init=False)
    incarnation: int = field(default=0, init=False)
    started_at: float | None = field(default=None, init=False)
    """By the system's monotonic clock [s]."""
    ready_at: float | None = field(default=None, init=False)
    """By the system's monotonic clock [s]."""
    status: str = field(default="", init=False)
    last_exit: str = field(default="", init=False)
    _is_wanted: bool = field(default=True, init=False)
    _request: Cause | None = field(default=None, init=False)
    _reason: str = field(default="", init=False)
    _changed: trio.Event = field(factory=trio.Event, init=False)
    """Wakes the owning task."""
    _news: trio.Event = field(factory=trio.Event, init=False)
    """Wakes those who wait for a state."""
    _history: RestartHistory = field(factory=RestartHistory, init=False)
    _starting: trio.CancelScope | None = field(default=None, init=False)
    """Around the start of a process, while it lasts."""
    _process_id: int = field(default=0, init=False)
    """Of the last process, for what is said once it is gone."""
    _spawned: float = field(default=0.0, init=False)
    _starting_since: float = field(default=0.0, init=False)
    """From when on the startup timeout counts."""
    _was_ready: float | None = field(default=None, init=False)
    _heartbeat: float | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        """``service.index``."""
        return self.plan.name

    @property
    def is_wanted(self) -> bool:
        """Whether it is to run, whatever it does at the moment."""
        return self._is_wanted

    @property
    def restarts(self) -> int:
        """Incarnations after the first."""
        return max(0, self.incarnation - 1)

    # What others ask of it. All return at once.

    def request_restart(self, reason: str = "") -> None:
        """Have the process replaced gracefully, or started if there is none."""
        self._is_wanted = True
        self._ask(Cause.RESTART, reason)

    def request_stop(self, reason: str = "") -> None:
        """Have it ended, and stay so."""
        self._is_wanted = False
        self._ask(Cause.STOP, reason)

    def request_start(self) -> None:
        """Have it started, if it is stopped, failed, or on its way there."""
        if not self._is_wanted or self.state in (State.STOPPED, State.FAILED):
            self._is_wanted = True
            self._ask(Cause.RESTART, "start")

    def notified(self, notification: Notification) -> None:
        """Take in what the process said."""
        if notification.is_heartbeat:
            if self._heartbeat is None:
                self._changed.set()  # the health check may begin with this one
            self._heartbeat = trio.current_time()
        if (status := notification.status) is not None and status != self.status:
            self.status = status
            self._tell()
        if notification.is_ready and self.plan.notifies:
            self._become_ready()

    async def wait_state(self, *states: State, since: int = 0) -> State:
        """Wait until it is in one of *states*, in incarnation *since* or later."""
        while not (self.state in states and self.incarnation >= since):
            await self._news.wait()
        return self.state

    async def wait_news(self) -> None:
        """Wait until anything that can be read off it changes."""
        await self._news.wait()

    # The task.

    async def run(self) -> None:
        """Run the process, again and again as its rules say.

        If cancelled, stops the process as its plan says before `trio.Cancelled` goes
        on: no process outlives the nursery that runs this task.

        Raises:
            RestartLimitError: it ended too often.
        """
        while True:
            if not self._is_wanted:
                await self._until_asked()
                continue
            self._request = None
            ending, problem = await self._live()
            await self._follow(ending, problem)

    async def _live(self) -> tuple[Ending, str]:
        """Run one incarnation to its end."""
        self.incarnation += 1
        self.status, self.ready_at = "", None
        self._was_ready = self._heartbeat = None
        self._step(Step.SPAWN)
        try:
            process = await self._start()
        except OSError as exc:
            # What was asked for meanwhile is done at once, not after a backoff.
            cause = self._request or Cause.SPAWN
            return Ending(cause=cause, returncode=None), str(exc)
        if process is None:
            cause = self._request or Cause.STARTUP_TIMEOUT
            return Ending(cause=cause, returncode=None), "not started in time"
        cause = Cause.EXIT
        try:
            self._begin(process)
            cause = await self._watch(process)
            self._announce_stop(process, cause)
        finally:
            with trio.CancelScope(shield=True):
                await self._end(process)
        if self._request is not None:  # asked for while it ended: planned, then
            cause = self._request
        ready_for = None
        if self._was_ready is not None:
            ready_for = trio.current_time() - self._was_ready
        ending = Ending(cause=cause, returncode=process.returncode, ready_for=ready_for)
        return ending, ""

    async def _start(self) -> Process | None:
        """Start the process; None: it took too long, or a stop was asked for.

        A fork server that imports the application for ever must not keep us.
        """
        timeout = self.plan.startup_timeout
        with trio.move_on_after(float("inf") if timeout is None else timeout) as scope:
            self._starting = scope
            try:
                return await self._spawn(self.incarnation)
            finally:
                self._starting = None
        return None

    def _begin(self, process: Process) -> None:
        self.process = process
        self._process_id = process.pid
        self._spawned = self._starting_since = trio.current_time()
        self.started_at = time.monotonic()
        self._watcher.on_event(
            Started(
                name=self.name, process_id=process.pid, incarnation=self.incarnation
            )
        )
        self._tell()
        self._watcher.on_process(self, process, True)
        if not self.plan.notifies:
            self._become_ready()

    async def _watch(self, process: Process) -> Cause:
        """Wait until the process ended, or is to be ended; return why."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._await_exit, process)
            cause = await self._await_cause(process)
            nursery.cancel_scope.cancel()
        return cause

    async def _await_exit(self, process: Process) -> None:
        await process.wait()
        self._hear()  # its last words count
        self._changed.set()

    async def _await_cause(self, process: Process) -> Cause:
        while True:
            if process.returncode is not None:
                return self._request or Cause.EXIT
            if self._request is not None:
                return self._request
            deadline, cause = self._deadline()
            late = trio.current_time() - deadline
            if late > _SUSPENDED:
                # It was us who slept (SIGSTOP, a suspended host): what the process had
                # to say meanwhile is still unread. It gets the whole time again.
                if self._was_ready is None:
                    self._starting_since = trio.current_time()
                else:
                    self._heartbeat = trio.current_time()
                continue
            if late >= 0:
                return cause
            self._changed = trio.Event()
            with trio.move_on_at(deadline):
                await self._changed.wait()

    def _deadline(self) -> tuple[float, Cause]:
        """When the process is to be ended for its silence, and why."""
        plan = self.plan
        if self._was_ready is None:
            if plan.startup_timeout is not None:
                deadline = self._starting_since + plan.startup_timeout
                return deadline, Cause.STARTUP_TIMEOUT
        elif plan.health_check_timeout is not None:
            last = self._heartbeat
            if plan.beats_from_ready:
                last = max(self._was_ready, last or self._was_ready)
            if last is not None:
                return last + plan.health_check_timeout, Cause.UNHEALTHY
        return float("inf"), Cause.EXIT

    def _announce_stop(self, process: Process, cause: Cause) -> None:
        if process.returncode is not None:
            if not process.is_gone:  # what is left of its group is ended first
                self._step(Step.STOP)
            return
        if cause is Cause.UNHEALTHY:
            self._step(Step.SICKEN)
        self._step(Step.STOP)
        self._watcher.on_event(
            Stopping(
                name=self.name,
                process_id=process.pid,
                cause=cause.value,
                reason=self._reason if cause is self._request else "",
            )
        )

    async def _end(self, process: Process) -> None:
        """End what is left of the process and its group, and reap it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._complain, process)
            await stop(process, self.plan.stop, self.patience)
            nursery.cancel_scope.cancel()
        self.last_exit = describe_exit(process.returncode)
        self.process = None
        self.started_at = self.ready_at = None
        self._watcher.on_process(self, process, False)
        process.close()

    async def _complain(self, process: Process) -> None:
        began = trio.current_time()
        await trio.sleep(self.plan.stop.timeout)
        while True:
            await trio.sleep(_STUCK_INTERVAL)
            seconds = trio.current_time() - began
            event = Stuck(name=self.name, process_id=process.pid, seconds=seconds)
            self._watcher.on_event(event)

    async def _follow(self, ending: Ending, problem: str) -> None:
        """Decide what follows *ending*, say so, and wait for as long as it takes."""
        decision = self._history.decide(
            self.plan.rules, ending, now=trio.current_time(), u=self._rng.random()
        )
        self._watcher.on_event(self._event_of(ending, problem, decision))
        match decision:
            case Restart(delay):
                self._step(Step.RETRY)
                with trio.move_on_after(delay):
                    await self._until_asked()
                if not self._is_wanted:
                    self._step(Step.END)
            case Leave():
                self._is_wanted = False
                self._step(Step.FAIL if ending.is_failure else Step.END)
            case GiveUp(restarts, period):
                self._step(Step.FAIL)
                how = f"the last time with {describe_exit(ending.returncode)}"
                message = (
                    f"{self.name} was restarted {restarts} times within {period:g} s "
                    f"and ended again, {how}"
                )
                self._watcher.on_event(GaveUp(name=self.name, problem=message))
                raise RestartLimitError(message)

    def _event_of(self, ending: Ending, problem: str, decision: Decision) -> Event:
        match decision:
            case Restart(0.0):
                next_step = "restarting"
            case Restart(delay):
                next_step = f"restarting in {delay * 1000:.0f} ms"
            case Leave():
                next_step = "left ended"
            case GiveUp():
                next_step = "giving up"
        if ending.returncode is None:
            self.last_exit = problem
            return NotStarted(name=self.name, problem=problem, next_step=next_step)
        return Exited(
            name=self.name,
            process_id=self._process_id,
            returncode=ending.returncode,
            is_planned=ending.is_planned,
            next_step=next_step,
        )

    def _become_ready(self) -> None:
        if self.state is not State.STARTING or self.process is None:
            return
        now = trio.current_time()
        self._was_ready = now
        self.ready_at = time.monotonic()
        self._watcher.on_event(
            Ready(
                name=self.name,
                process_id=self.process.pid,
                seconds=now - self._spawned,
            )
        )
        self._step(Step.READY)
        self._changed.set()

    async def _until_asked(self) -> None:
        self._request = None
        while self._request is None:
            self._changed = trio.Event()
            await self._changed.wait()
        if not self._is_wanted and self.state is State.FAILED:
            self._step(Step.END)

    def _ask(self, cause: Cause, reason: str) -> None:
        self._request, self._reason = cause, reason
        if cause is Cause.STOP and self._starting is not None:
            self._starting.cancel()
        self._changed.set()

    def _step(self, step: Step) -> None:
        self.state = advance(self.state, step)
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()
        self._watcher.on_change(self)
