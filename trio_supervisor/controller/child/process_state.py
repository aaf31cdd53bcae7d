"""Track the observed state of a process and its next deadline."""

from __future__ import annotations

import math
from typing import Final

from attrs import define, field

from trio_supervisor.controller.child.child_spec import ChildPlan
from trio_supervisor.controller.child.exit_messages import Fault
from trio_supervisor.policy.restart import Cause

# A controller that is starved of processor time wakes late each time, and is to judge
# at last. The time that it lost is subtracted then, too.
_NAPS: Final = 5


@define(eq=False)
class ProcessState:
    """Of one process. All moments are by the loop's clock [s]."""

    _plan: ChildPlan
    began: float = field(default=0.0, init=False)
    first_ready: float | None = field(default=None, init=False)
    unready_since: float | None = field(default=None, init=False)
    """When it was unready last, once it had been ready."""
    says_ready: bool = field(default=False, init=False)
    is_probed_ready: bool = field(default=False, init=False)
    """What its probes say."""
    is_stable: bool = field(default=False, init=False)
    """Whether it has been ready for ``stable_for`` seconds."""
    probe_failure: Cause | None = field(default=None, init=False)
    """What a probe says of it that is a reason to end it."""
    fault: Fault | None = field(default=None, init=False)
    """The same in words."""
    alive_at: float | None = field(default=None, init=False)
    """When its liveness probe succeeded last; None: it has none."""
    was_dumped: bool = field(default=False, init=False)
    """Whether its evidence was taken."""
    _starting_since: float = field(default=0.0, init=False)
    """From when on the startup timeout counts."""
    _heartbeat: float | None = field(default=None, init=False)
    _naps: int = field(default=0, init=False)
    """How often it got the whole time again since its last sign of life."""

    def begin(self, now: float) -> None:
        """Say that it runs."""
        self.began = self._starting_since = now

    @property
    def is_ready(self) -> bool:
        """Whether it is ready, by all that it says and that its probes say."""
        has_said = self.says_ready or not self._plan.notifies
        return has_said and (self.is_probed_ready or self._plan.prober is None)

    def stable_at(self) -> float:
        """Return when it becomes stable; infinity where it is, or is not ready."""
        if self.is_stable or self.first_ready is None:
            return math.inf
        return self.first_ready + self._plan.stable_for

    def beat(self, now: float) -> bool:
        """Take in a heartbeat; return whether it was the first."""
        is_first = self._heartbeat is None
        if is_first or now > (self._heartbeat or 0.0):
            self._naps = 0
        self._heartbeat = now if is_first else max(now, self._heartbeat or now)
        return is_first

    @property
    def look_again(self) -> float:
        """After how long to look for a first heartbeat, which nothing announces [s]."""
        timeout = self._plan.health_check_timeout
        if timeout is None or self._heartbeat is not None or self.first_ready is None:
            return math.inf
        return math.inf if self._plan.beats_from_ready else timeout / 3

    @property
    def may_sleep(self) -> bool:
        """Whether `awake` may be called: not without end."""
        return self._naps < _NAPS

    def awake(self, now: float) -> None:
        """Give it the whole time again: it was us who slept."""
        self._naps += 1
        if self.first_ready is None:
            self._starting_since = now
        else:
            self._heartbeat = now

    def stay(self, now: float) -> None:
        """Give it the whole time again: the application's policy keeps it."""
        self.awake(now)
        self._naps = 0
        self.probe_failure = self.fault = None
        if self.alive_at is not None:
            self.alive_at = now

    def well_for(self, until: float, *, has_hung: bool) -> float | None:
        """Return how long it was ready and well [s]; None: it never was ready.

        Args:
            until: When it ended, or now.
            has_hung: Whether to believe only what it has shown: its last heartbeat, the
                last liveness probe that succeeded.
        """
        first = self.first_ready
        if first is None:
            return None
        if self.unready_since is not None and not self.is_ready:
            until = min(until, self.unready_since)
        if has_hung and self._plan.health_check_timeout is not None:
            until = min(until, self._heartbeat or first)
        if has_hung and self.alive_at is not None:
            until = min(until, self.alive_at)
        return max(0.0, until - first)

    def timeout(self, cause: Cause) -> float:
        """Return the timeout that *cause* is about [s]."""
        is_start = cause is Cause.STARTUP_TIMEOUT
        plan = self._plan
        timeout = plan.startup_timeout if is_start else plan.health_check_timeout
        return math.inf if timeout is None else timeout

    def deadline(self) -> tuple[float, Cause]:
        """Return when it is to be ended for its silence, and why."""
        plan = self._plan
        if self.first_ready is None:
            if plan.startup_timeout is not None:
                deadline = self._starting_since + plan.startup_timeout
                return deadline, Cause.STARTUP_TIMEOUT
        elif plan.health_check_timeout is not None:
            last = self._heartbeat
            if plan.beats_from_ready:
                last = max(self.first_ready, last or self.first_ready)
            if last is not None:
                return last + plan.health_check_timeout, Cause.UNHEALTHY
        return math.inf, Cause.EXIT
