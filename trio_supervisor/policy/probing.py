"""What the outcomes of a probe, one after the other, say of a process. Pure."""

from __future__ import annotations

from enum import Enum
from typing import Final

from attrs import define, field
from attrs.validators import ge, instance_of

_positive: Final = [instance_of(int), ge(1)]


class Health(Enum):
    """What a probe says."""

    UNKNOWN = "unknown"
    """Too few outcomes yet."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@define
class ProbeCounter:
    """Counts outcomes in a row, as Kubernetes' thresholds do.

    One for each probe of each incarnation. A *startup* probe that becomes HEALTHY has
    started the process, one that becomes UNHEALTHY says that it failed to start. A
    *readiness* probe begins as UNKNOWN too, which is not ready; a *liveness* probe
    begins as HEALTHY.
    """

    failures: int = field(default=3, validator=_positive)
    """So many in a row make it UNHEALTHY."""
    successes: int = field(default=1, validator=_positive)
    """So many in a row make it HEALTHY."""
    health: Health = Health.UNKNOWN
    _last: bool | None = field(default=None, init=False)
    _in_a_row: int = field(default=0, init=False)

    def add(self, is_success: bool) -> Health | None:
        """Take in an outcome; return what it has become, None if it is what it was."""
        self._in_a_row = self._in_a_row + 1 if is_success is self._last else 1
        self._last = is_success
        if self._in_a_row < (self.successes if is_success else self.failures):
            return None
        health = Health.HEALTHY if is_success else Health.UNHEALTHY
        if health is self.health:
            return None
        self.health = health
        return health
