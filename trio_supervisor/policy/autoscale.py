"""Decide how many workers a service needs for its load. Pure.

Source of the rule: the Horizontal Pod Autoscaler of Kubernetes, "Algorithm details":
the wanted number is the present one times present use over wanted use, rounded up;
nothing changes within a tolerance; a step up at most doubles; and a step down waits
until no greater number was wanted for a while (its stabilization window).
"""

from __future__ import annotations

import math
from collections import deque

from attrs import define, field, frozen

TOLERANCE = 0.1
"""Deviation from the target that changes nothing, as a fraction of the target."""
_FEW = 4
"""A step up by this many workers is allowed even if it more than doubles them."""
_ROUNDING = 1e-9


@frozen(kw_only=True)
class ScalingRule:
    """How many workers are wanted for which load."""

    minimum: int
    maximum: int
    target: float
    """Wanted use of each worker, as a fraction of *per_worker*."""
    per_worker: float
    """Load that uses one worker fully, in the unit of the metric."""
    scale_down_after: float
    """How long less must be wanted before workers are stopped [s]."""

    def use(self, load: float, count: int) -> float:
        """Return the present use of each worker, as a fraction of *per_worker*."""
        return load / (self.per_worker * count) if count else math.inf

    def wanted(self, load: float, count: int) -> int:
        """Return how many workers *load* needs, where there are *count*."""
        ratio = self.use(load, count) / self.target
        if self.minimum <= count <= self.maximum and abs(ratio - 1) <= TOLERANCE:
            return count
        exact, most = load / (self.per_worker * self.target), count + max(_FEW, count)
        wanted = math.ceil(exact - _ROUNDING) if exact < most else most
        return max(self.minimum, min(wanted, self.maximum))


@define
class Autoscaler:
    """Decides for one service, from one look to the next."""

    rule: ScalingRule
    _began: float | None = field(default=None, init=False)
    """When the first look was."""
    _wanted: deque[tuple[float, int]] = field(factory=deque, init=False)
    """What was wanted when, newest last: only what later looks did not exceed."""

    def decide(self, now: float, load: float, count: int) -> int:
        """Return how many workers there should be.

        Args:
            now: Any clock that does not go back [s].
            load: Sum of the metric over all workers.
            count: Present number of workers.
        """
        if self._began is None:
            self._began = now
        wanted = self.rule.wanted(load, count)
        while self._wanted and self._wanted[-1][1] <= wanted:
            self._wanted.pop()
        self._wanted.append((now, wanted))
        since = now - self.rule.scale_down_after
        while self._wanted[0][0] < since:
            self._wanted.popleft()
        if wanted >= count:
            return wanted
        if count > self.rule.maximum:
            return self.rule.maximum
        if self._began > since:
            return count  # too little is known
        return min(count, self._wanted[0][1])
