"""Extend health deadlines and delay starts while the machine is overloaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Final, Protocol

import trio
from attrs import define, evolve, field, frozen

from trio_supervisor.controller.events import Event, OverloadBegan, OverloadEnded
from trio_supervisor.controller.loop_lag import LoopClock
from trio_supervisor.policy.admission import Admission, limit_for, makes_room
from trio_supervisor.policy.overload import (
    LATE,
    Pressure,
    ResponseGap,
    Triage,
    is_certain,
    time_left,
)
from trio_supervisor.process.inspection.machine_load import Machine

# Interval of sampling the CPU wait of a process past its deadline [s].
_SOONEST: Final = 0.05
_LATEST: Final = 1.0
# Minimum interval between samples of all workers [s].
_REVIEW: Final = 0.2


class WatchedChild(Hashable, Protocol):
    """The part of a child that overload control uses."""

    @property
    def process_id(self) -> int | None:
        """PID of its process; None: there is none."""
        ...

    def lateness(self) -> float | None:
        """Return the elapsed fraction of its timeout; None: no deadline is set."""
        ...

    def check_again(self) -> None:
        """Check again whether it may start."""
        ...


@frozen
class _Baseline:
    """Wait times of a process at its last heartbeat."""

    queued: Mapping[int, float]
    stalled: float


_BORN: Final = _Baseline({}, 0.0)


@define(eq=False)
class OverloadControl:
    """Overload control for all processes of a controller."""

    _children: Callable[[], Iterable[WatchedChild]]
    _on_event: Callable[[Event], None]
    _machine: Machine
    clock: LoopClock = field(init=False)
    _triage: Triage = field(factory=Triage, init=False)
    _admission: Admission[WatchedChild] = field(init=False)
    _pressed_at: float = field(default=-math.inf, init=False)
    _was_pressed: bool = field(default=False, init=False)
    _reviewed_at: float = field(default=-math.inf, init=False)
    _baselines: dict[int, _Baseline] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.clock = LoopClock(self._tick)
        self._admission = Admission(limit_for(self._machine.cores))

    def heard_from(self, process_id: int) -> None:
        """Note a heartbeat of the process."""
        self._baselines[process_id] = self._waited(process_id)

    def forget(self, process_id: int) -> None:
        """Forget the process, which has exited."""
        self._baselines.pop(process_id, None)

    def extra_time(self, process_id: int, since: float, timeout: float) -> float:
        """Return by how much to extend the deadline [s]; 0: stop the process.

        Args:
            since: Time of the last heartbeat, or of the start of the process.
        """
        now = trio.current_time()
        gap = self._gap(process_id, since, self._baselines.get(process_id))
        if (left := time_left(gap, timeout)) > 0:
            return min(max(left, _SOONEST), _LATEST)
        pressure = self._pressure(now, gap.queued / max(gap.elapsed, _SOONEST))
        self._review(now, pressure)
        return self._triage.wait(
            now,
            is_pressed=pressure.is_high,
            is_certain=is_certain(gap, timeout) or self._machine.is_stopped(process_id),
        )

    def admit(self, child: WatchedChild) -> str:
        """Return why *child* may not start yet; empty: it may start now."""
        now = trio.current_time()
        is_pressed = self._is_pressed(now)
        if self._admission.admit(child, now, is_pressed=is_pressed):
            return ""
        return "other workers to start first (machine under pressure)"

    def started(self, child: WatchedChild) -> None:
        """Note that *child* is ready, has exited, or should not start any more."""
        self._admission.done(child)
        self._admit_next(trio.current_time())

    def _admit_next(self, now: float) -> None:
        if self._admission.is_idle:
            return
        for child in self._admission.next(is_pressed=self._is_pressed(now)):
            child.check_again()

    def _is_pressed(self, now: float) -> bool:
        """Return whether the machine is under pressure, sampled at intervals."""
        if now >= self._pressed_at + _REVIEW:
            self._pressed_at = now
            self._was_pressed = self._pressure(now).is_high
        return self._was_pressed

    def measure(self, process_id: int) -> Callable[[float], float]:
        """Return a function that returns how much is left of a timeout [s]."""
        since, base = trio.current_time(), self._waited(process_id)

        def left(timeout: float) -> float:
            return time_left(self._gap(process_id, since, base), timeout)

        return left

    def _gap(
        self, process_id: int, since: float, base: _Baseline | None
    ) -> ResponseGap:
        now = trio.current_time()
        return ResponseGap(
            elapsed=now - since,
            ours=self.clock.lost(since, now),
            queued=self._queued(process_id, base or _BORN),
        )

    def _waited(self, process_id: int) -> _Baseline:
        machine = self._machine
        return _Baseline(machine.queued(process_id), machine.stalled(process_id))

    def _queued(self, process_id: int, base: _Baseline) -> float:
        waited = self._machine.queued(process_id)
        # Use the thread that waited most: if it holds the GIL, all others wait
        # for it.
        queued = max(
            (time - base.queued.get(thread, 0.0) for thread, time in waited.items()),
            default=0.0,
        )
        if base is _BORN:  # do not count wait times from before it started
            return queued
        return queued + max(0.0, self._machine.stalled(process_id) - base.stalled)

    def _pressure(self, now: float, queued: float = 0.0) -> Pressure:
        return evolve(
            self._machine.pressure(), lateness=self.clock.share(now), queued=queued
        )

    def _review(self, now: float, pressure: Pressure) -> None:
        if now < self._reviewed_at + _REVIEW:
            return
        self._reviewed_at = now
        late = watched = 0
        for child in self._children():
            process_id, lateness = child.process_id, child.lateness()
            if process_id is None or lateness is None:
                continue
            watched += 1
            if lateness >= LATE and not self._machine.is_stopped(process_id):
                late += 1
        if not self._triage.review(
            late=late, watched=watched, is_pressed=pressure.is_high
        ):
            return
        if self._triage.is_overloaded:
            causes = pressure.causes
            self._on_event(
                OverloadBegan(
                    name="controller", late=late, watched=watched, causes=causes
                )
            )
        else:
            self._on_event(OverloadEnded(name="controller", late=late, watched=watched))

    def _tick(self) -> None:
        now = trio.current_time()
        for child, since in list(self._admission.starting.items()):
            process_id = child.process_id
            if process_id is not None and makes_room(
                now - since, self._machine.busy(process_id)
            ):
                self._admission.done(child)
        self._admit_next(now)
        if self._triage.is_overloaded:
            self._review(now, self._pressure(now))
