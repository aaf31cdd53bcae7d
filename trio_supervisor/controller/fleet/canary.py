"""Try a few workers of a new generation beside the old ones, and compare them."""

from __future__ import annotations

import time
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeAlias

import trio
from attrs import define, field, frozen

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.exit_messages import restart_reason
from trio_supervisor.controller.events import (
    CanaryFailed,
    CanaryPassed,
    CanaryStarted,
    Event,
)
from trio_supervisor.controller.fleet.members import Members
from trio_supervisor.controller.fleet.takeover import Takeover
from trio_supervisor.errors import ReloadError
from trio_supervisor.policy.canary import (
    BEATS,
    CanaryTrial,
    ObservedService,
    ObservedWorker,
    judge,
)
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.restart import Cause, Ending
from trio_supervisor.process.child import describe_exit
from trio_supervisor.wire.workers import CanaryStatus

Measure: TypeAlias = Callable[[Sequence[int]], Awaitable[Mapping[int, int]]]
"""Returns the resident memory of processes [bytes], by process id."""

# Longest time between two looks [s]; a shorter observation has a hundred of them.
_TICK: Final = 1.0
_TICKS: Final = 100
# Samples of one worker's memory and lateness: those of a day must not fill the memory.
_SAMPLES: Final = 1000
# Old workers of a service whose memory is read: a few of a thousand show what is usual.
_COMPARED: Final = 32
# Heartbeats within ``health_check_timeout``.
_BEATS_IN_TIMEOUT: Final = 3


class CountsErrors(Protocol):
    """The metrics of all processes, as far as errors are concerned."""

    def errors_of(self, process_id: int) -> float | None:
        """Return how many errors a process has counted; None: unknown."""
        ...


class CanaryOwner(Protocol):
    """Callbacks of `CanaryWatch` to the controller."""

    members: Members

    @property
    def metrics(self) -> CountsErrors: ...
    @property
    def is_stopping(self) -> bool: ...
    def on_event(self, event: Event) -> None: ...


async def start_canary(
    owner: CanaryOwner, taking: Takeover, trial: CanaryTrial, measure: Measure
) -> CanaryWatch | None:
    """Start a canary of each service that can have one; return what compares it.

    None: the reload replaces no worker, so it needs no canary.

    Raises:
        ReloadError: a canary did not become ready, or no service can have one; the
            message says why. The caller stops it.
    """
    canaries = taking.choose_canaries(trial.workers)
    if not canaries:
        if problem := taking.no_canary_text():
            raise ReloadError(
                f"no service can have a canary: {problem}; reload without it"
            )
        return None
    await taking.start_canaries(canaries)
    pairs = [
        (children, taking.old_workers_of(name)) for name, children in canaries.items()
    ]
    services = [_WatchedService.of(*pair) for pair in pairs]
    return CanaryWatch(owner, taking, trial, services, measure)


@define(eq=False)
class CanaryWatch:
    """One observation of canaries."""

    _owner: CanaryOwner
    _taking: Takeover
    _trial: CanaryTrial
    _services: Sequence[_WatchedService]
    _measure: Measure
    _began: float = field(factory=trio.current_time, init=False)
    _due: float = field(default=0.0, init=False)
    """When memory and lateness are read next, since the observation began [s]."""
    _exit: trio.Event = field(factory=trio.Event, init=False)
    """Set by the next exit of an observed worker."""

    @property
    def canaries(self) -> list[Child]:
        """The canaries of all services."""
        return [each.child for service in self._services for each in service.canaries]

    @property
    def left(self) -> float:
        """Time until the observation ends [s]."""
        elapsed = trio.current_time() - self._began
        return max(0.0, self._trial.seconds - elapsed)

    @property
    def _tick(self) -> float:
        """Time between two looks, unless a worker exits [s]."""
        return min(_TICK, self._trial.seconds / _TICKS)

    async def run(self) -> None:
        """Observe the canaries for the time of the trial.

        Raises:
            ReloadError: they did worse than the old workers, or a shutdown began.
        """
        number = self._taking.number
        names = tuple(child.name for child in self.canaries)
        seconds = self._trial.seconds
        told: dict[str, Any] = {"name": "controller", "generation": number}
        told["workers"] = names
        self._owner.on_event(CanaryStarted(**told, seconds=seconds))
        excuse = self._taking.excuse(self.canaries)
        with excuse, self._shown(), self._counted():
            if problem := await self._observe():
                self._owner.on_event(CanaryFailed(**told, problem=problem))
                raise ReloadError(f"rolled back: {problem}")
        self._taking.canaries = names
        self._owner.on_event(CanaryPassed(**told))

    async def _observe(self) -> str:
        """Return what is worse about the canaries; empty: nothing until the end."""
        seconds = self._trial.seconds
        while True:
            self._exit = trio.Event()
            elapsed = trio.current_time() - self._began
            await self._look(elapsed)
            for service in self._services:
                if problem := judge(service.observed(elapsed, seconds)):
                    return problem
            if elapsed >= seconds:
                return ""
            with trio.move_on_after(min(self._tick, seconds - elapsed)):
                await self._exit.wait()
            if self._owner.is_stopping:
                raise ReloadError("the controller is shutting down")

    async def _look(self, elapsed: float) -> None:
        for service in self._services:
            for each in service.everyone:
                each.look()
            for each in service.measured:
                if (process := each.child.process) is not None:
                    each.add_errors(self._owner.metrics.errors_of(process.pid))
        if elapsed < min(self._due, self._trial.seconds):
            return
        interval = max(self._tick, self._trial.seconds / _SAMPLES)
        # A tick is never earlier than its time: half of it tells it from an exit.
        self._due = elapsed + interval - self._tick / 2
        measured = [each for service in self._services for each in service.measured]
        present = {
            process.pid: each
            for each in measured
            if (process := each.child.process) is not None
        }
        sizes = await self._measure(list(present))
        for process_id, each in present.items():
            each.add_sample(elapsed, sizes.get(process_id))

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """Show in `status` which workers are observed."""
        now = time.time()
        status = CanaryStatus(since=now, until=now + self._trial.seconds)
        for child in self.canaries:
            child.canary = status
            child.tell()
        try:
            yield
        finally:
            for child in self.canaries:
                child.canary = None
                child.tell()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count the exits of all observed workers."""
        crashes = self._owner.members.fleet.crashes
        watched = {
            each.child: each for service in self._services for each in service.everyone
        }

        def count(child: Child, ending: Ending) -> None:
            if (each := watched.get(child)) is not None:
                each.add_exit(ending)
                self._exit.set()

        before, crashes.on_exit = crashes.on_exit, count
        try:
            yield
        finally:
            crashes.on_exit = before


@frozen(eq=False)
class _WatchedService:
    """The canaries of one service, and the old workers that they are compared with."""

    canaries: Sequence[_WatchedWorker]
    others: Sequence[_WatchedWorker]

    @classmethod
    def of(
        cls, canaries: Collection[Child], others: Collection[Child]
    ) -> _WatchedService:
        return cls([*map(_WatchedWorker, canaries)], [*map(_WatchedWorker, others)])

    @property
    def everyone(self) -> Sequence[_WatchedWorker]:
        return [*self.canaries, *self.others]

    @property
    def measured(self) -> Sequence[_WatchedWorker]:
        """Those whose memory is read."""
        return [*self.canaries, *self.others[:_COMPARED]]

    def observed(self, elapsed: float, seconds: float) -> ObservedService:
        return ObservedService(
            canaries=[each.observed(seconds) for each in self.canaries],
            others=[each.observed(seconds) for each in self.others],
            elapsed=elapsed,
            seconds=seconds,
        )


@define(eq=False)
class _WatchedWorker:
    """What was seen of one worker."""

    child: Child
    _exits: int = field(default=0, init=False)
    _last_exit: str = field(default="", init=False)
    _restarts: int = field(default=0, init=False)
    _restart_reason: str = field(default="", init=False)
    _incarnation: int = field(init=False)
    _errors: float | None = field(default=None, init=False)
    _counted: tuple[int, float] | None = field(default=None, init=False)
    """Incarnation and value of the last look at its error counters."""
    _sizes: list[tuple[float, int]] = field(factory=list, init=False)
    _lags: list[float] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._incarnation = self.child.incarnation

    def add_exit(self, ending: Ending) -> None:
        """Count an exit that was not planned."""
        if ending.cause is Cause.SHORTAGE:
            return  # of this machine: no fault of the worker
        self._exits += 1
        child = self.child
        if ending.cause is Cause.EXIT:
            self._last_exit = describe_exit(ending.returncode, child.kill_reason)
        else:
            self._last_exit = restart_reason(ending, "", child.fault)

    def look(self) -> None:
        """Take note of a restart since the last look."""
        child = self.child
        if child.incarnation != self._incarnation:
            ending = child.last_ending
            if ending is not None and ending.cause in (Cause.MONITOR, Cause.WORKER):
                self._restarts += 1
                self._restart_reason = child.why
            self._sizes.clear()
            self._incarnation = child.incarnation

    def add_errors(self, count: float | None) -> None:
        """Add the errors that its process has counted since the last call.

        Args:
            count: All that it has counted; None: it counts none.
        """
        if count is None:
            return
        incarnation, before = self._counted or (0, count)
        self._counted = self.child.incarnation, count
        known = before if incarnation in (0, self.child.incarnation) else 0.0
        self._errors = (self._errors or 0.0) + max(0.0, count - known)

    def add_sample(self, elapsed: float, size: int | None) -> None:
        """Add its memory [bytes] and how late its event loop is now."""
        if size is not None:
            self._sizes.append((elapsed, size))
        if (lag := self.child.loop_lag()) is not None:
            self._lags.append(lag)

    def observed(self, seconds: float) -> ObservedWorker:
        child = self.child
        is_ready = child.state is State.READY
        return ObservedWorker(
            name=child.name,
            exits=self._exits,
            last_exit=self._last_exit,
            restarts=self._restarts,
            restart_reason=self._restart_reason,
            is_ready=is_ready,
            is_down=child.has_exited_for_good and not child.has_done_its_work,
            trouble="" if is_ready else child.state.value,
            errors=self._errors,
            sizes=tuple(self._sizes),
            lags=tuple(self._lags) if self._has_beats(seconds) else (),
        )

    def _has_beats(self, seconds: float) -> bool:
        """Whether there are enough heartbeats within *seconds* to compare them."""
        timeout = self.child.plan.health_check_timeout
        return timeout is not None and seconds * _BEATS_IN_TIMEOUT >= BEATS * timeout
