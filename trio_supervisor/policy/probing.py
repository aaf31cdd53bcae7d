"""Derive the health of a process from the outcomes of a probe. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final

from attrs import define, field
from attrs.validators import ge, instance_of

_FIRST_PAUSE: Final = 0.1
_GROWTH: Final = 1.5
_positive: Final = [instance_of(int), ge(1)]


class ProbeHealth(Enum):
    """Result of a probe after its thresholds."""

    UNKNOWN = "unknown"
    """Too few attempts so far."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@define
class ProbeCounter:
    """Counts outcomes in a row, like the thresholds of Kubernetes.

    Each probe of each incarnation has its own counter. When a *startup* probe becomes
    HEALTHY the process has started; when it becomes UNHEALTHY the start has failed. A
    *readiness* probe begins as UNKNOWN, which is not ready; a *liveness* probe begins
    as HEALTHY.
    """

    failures: int = field(default=3, validator=_positive)
    """Number of failures in a row that make it UNHEALTHY."""
    successes: int = field(default=1, validator=_positive)
    """Number of successes in a row that make it HEALTHY."""
    health: ProbeHealth = ProbeHealth.UNKNOWN
    _last: bool | None = field(default=None, init=False)
    _in_a_row: int = field(default=0, init=False)

    def add(self, is_success: bool) -> ProbeHealth | None:
        """Add an outcome; return the new health, or None if it has not changed."""
        self._in_a_row = self._in_a_row + 1 if is_success is self._last else 1
        self._last = is_success
        if self._in_a_row < (self.successes if is_success else self.failures):
            return None
        health = ProbeHealth.HEALTHY if is_success else ProbeHealth.UNHEALTHY
        if health is self.health:
            return None
        self.health = health
        return health


def quick_pauses(interval: float) -> Iterator[float]:
    """Return the pauses between startup probes: short at first, then *interval* [s]."""
    pause = min(_FIRST_PAUSE, interval)
    while True:
        yield pause
        pause = min(pause * _GROWTH, interval)
