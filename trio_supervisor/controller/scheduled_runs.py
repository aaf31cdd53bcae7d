"""Start workers that have a schedule when they are due, and follow their runs."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Iterator
from typing import Final, Protocol

import trio
from attrs import define, evolve, field

from trio_supervisor.application import AnyService
from trio_supervisor.application.timetable import Timetable
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.exit_messages import Fault
from trio_supervisor.controller.due_times import DueTimesFile
from trio_supervisor.controller.events import Event, RunLeftOut
from trio_supervisor.controller.fleet.generation import Generation, Unit
from trio_supervisor.controller.fleet.members import Members
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.restart import Cause
from trio_supervisor.policy.run_times import DueTime, RunTimes, zone_of
from trio_supervisor.process.child import describe_exit
from trio_supervisor.process.local_zone import local_zone
from trio_supervisor.tasks import open_nursery
from trio_supervisor.wire.workers import ScheduleStatus

# Between two looks at the clock, which may have been set, or have gone on while the
# machine was suspended; also until a new worker is followed [s].
_LOOK_INTERVAL: Final = 1.0
# What is due more often than this is not made up for after a restart [s].
_KEPT_FROM: Final = 30.0
_DUE: Final = "scheduled run"


class RunsOwner(Protocol):
    """What is asked of the controller."""

    members: Members
    rng: random.Random

    @property
    def generation(self) -> Generation: ...
    @property
    def is_stopping(self) -> bool: ...
    async def wait_take_over(self) -> None: ...
    def everyone(self) -> Iterator[Child]: ...
    def on_event(self, event: Event) -> None: ...


@define(eq=False)
class _Line:
    """The schedule of one service."""

    timetable: Timetable
    due: DueTime
    queued: set[str] = field(factory=set)
    """Workers to be started again as soon as their present run has ended."""


@define(eq=False)
class ScheduledRuns:
    """Runs of all services that have a schedule."""

    _owner: RunsOwner
    _file: DueTimesFile
    _wall: Callable[[], float] = time.time
    """The system's clock [s since the epoch]."""
    _lines: dict[str, _Line] = field(factory=dict, init=False)
    """By service."""
    _followed: set[Child] = field(factory=set, init=False)
    _saved: dict[str, float] = field(factory=dict, init=False)

    async def run(self) -> None:
        """Start and follow runs until cancelled, or until a shutdown begins."""
        self._saved = await self._file.load()
        async with open_nursery() as nursery:
            while not self._owner.is_stopping:
                self._learn()
                for child in self._unfollowed():
                    self._followed.add(child)
                    nursery.start_soon(self._follow, child)
                for name, line in self._lines.items():
                    self._look(name, line)
                await self._file.save(self._kept())
                await self._wait()
            nursery.cancel_scope.cancel()

    # Which schedules there are.

    def _units(self) -> dict[str, Unit]:
        units = self._owner.generation.units
        return {n: u for n, u in units.items() if u.service.schedule is not None}

    def _learn(self) -> None:
        """Take in the schedules of the current generation; keep the known ones."""
        known, self._lines = self._lines, {}
        for name, unit in self._units().items():
            timetable = unit.service.schedule
            assert timetable is not None
            line = known.get(name)
            if line is None or line.timetable != timetable:
                line = self._line(unit.service, timetable)
            self._lines[name] = line

    def _line(self, service: AnyService, timetable: Timetable) -> _Line:
        name = timetable.timezone
        zone = local_zone() if name is None else zone_of(name)
        times = RunTimes(timetable.every, timetable.cron or "", zone)
        due = self._saved.get(_key(service.name, timetable))
        if due is None:
            due = times.after(self._wall())
        delay = timetable.jitter * self._owner.rng.random()
        return _Line(timetable, DueTime(times, due, timetable.catch_up, delay))

    def _kept(self) -> dict[str, float]:
        return {
            _key(name, line.timetable): line.due.at
            for name, line in self._lines.items()
            if (line.timetable.every or math.inf) >= _KEPT_FROM
        }

    def _unfollowed(self) -> Collection[Child]:
        children = [child for unit in self._units().values() for child in unit.children]
        return [child for child in children if child not in self._followed]

    # When they run.

    async def _wait(self) -> None:
        """Wait until something may be due."""
        if not self._lines:
            await self._owner.wait_take_over()
            return
        due = [line.due.starts_at for line in self._lines.values()]
        wait = min(due, default=math.inf) - self._wall()
        await trio.sleep(min(max(wait, 0.0), _LOOK_INTERVAL))

    def _look(self, name: str, line: _Line) -> None:
        was_due = line.due.starts_at
        delay = line.timetable.jitter * self._owner.rng.random()
        verdict = line.due.look(self._wall(), delay)
        unit = self._owner.generation.units[name]
        for child in unit.children:
            if verdict == "run" and not child.is_paused:
                self._begin(line, child, was_due)
            elif verdict == "missed" and not child.is_paused:
                self._leave_out(child, was_due, "it was missed (catch_up=False)")
            self._tell(line, child)

    def _begin(self, line: _Line, child: Child, due: float) -> None:
        others = [
            other
            for other in self._owner.everyone()
            if other.name == child.name and (other.is_wanted or other.has_process)
        ]
        if not others:
            self._start(child)
            return
        match line.timetable.overlap:
            case "queue":
                line.queued.add(child.name)
            case "replace":
                for other in others:
                    if other is not child:
                        other.request_stop("the next run is due", Cause.RELOAD)
                child.request_restart("the next run is due")
            case _:
                problem = "the run before has not ended (overlap='skip')"
                self._leave_out(child, due, problem)

    def _start(self, child: Child) -> None:
        if self._owner.is_stopping:
            return
        for each in (*self._owner.members.missing_needs([child]), child):
            each.request_start()
        child.why = _DUE

    def _leave_out(self, child: Child, due: float, problem: str) -> None:
        self._owner.on_event(RunLeftOut(name=child.name, due=due, problem=problem))

    # How they go.

    async def _follow(self, child: Child) -> None:
        """Record the runs of *child*, and end those that take too long."""
        while not (child.is_retired and child.is_down):
            if child.process is None:
                await child.wait_news()
                continue
            await self._follow_run(child)
            if child in self._owner.members.leaving and not child.is_retired:
                child.retire(Cause.RELOAD, "replaced by the new generation")
            self._start_queued(child)
        self._followed.discard(child)
        self._start_queued(child)

    async def _follow_run(self, child: Child) -> None:
        began, process = self._wall(), child.process
        line = self._lines.get(child.service)
        timeout = math.inf if line is None else line.timetable.timeout or math.inf
        with trio.move_on_after(timeout) as scope:
            while child.process is process:
                await child.wait_news()
        if scope.cancelled_caught:
            fault = Fault(f"ran for {timeout:g} s", "timeout of its schedule")
            child.fail_probe(Cause.UNHEALTHY, fault)
        while child.process is process or child.state is State.STOPPING:
            await child.wait_news()
        returncode = None if process is None else process.returncode
        result = "" if returncode is None else describe_exit(returncode)
        self._record(child, began, self._wall() - began, result)

    def _start_queued(self, child: Child) -> None:
        line = self._lines.get(child.service)
        if line is None or child.name not in line.queued:
            return
        current = self._owner.members.by_name.get(child.name)
        if current is None or current.is_paused:
            line.queued.discard(child.name)
        elif not (current.is_wanted or current.has_process or child.has_process):
            line.queued.discard(child.name)
            self._start(current)

    # What is shown of them.

    def _record(self, child: Child, began: float, seconds: float, result: str) -> None:
        child.schedule = evolve(
            child.schedule or ScheduleStatus(when=""),
            last_run_at=began,
            last_run_seconds=seconds,
            last_result=result,
        )
        child.tell()

    def _tell(self, line: _Line, child: Child) -> None:
        status = child.schedule or ScheduleStatus(when="")
        when, next_run_at = str(line.timetable), line.due.starts_at
        new = evolve(status, when=when, next_run_at=next_run_at)
        if new != child.schedule:
            child.schedule = new
            child.tell()


def _key(service: str, timetable: Timetable) -> str:
    """Return what identifies a schedule on disk: another one starts again."""
    return f"{service}: {timetable}"
