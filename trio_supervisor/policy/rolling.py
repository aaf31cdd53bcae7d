"""Which workers of a planned restart are next. Pure.

For ``restart --rolling --max-unavailable N``, and for planned restarts of which only
so many may go on at once: whoever restarts asks again whenever a worker changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from attrs import field, frozen
from attrs.validators import ge, instance_of, optional

_optional_positive: Any = optional([instance_of(int), ge(1)])


@frozen
class WorkerFacts:
    """What counts of one worker."""

    name: str
    service: str
    is_available: bool
    """Whether it does its work now, and is to do so."""


@frozen(kw_only=True)
class RollingLimits:
    """How much may be away at once."""

    max_unavailable: int | None = field(default=None, validator=_optional_positive)
    """So many workers of one service, for whatever reason; None: any number."""
    max_concurrently: int | None = field(default=None, validator=_optional_positive)
    """So many planned restarts in all; None: any number."""

    @property
    def are_any(self) -> bool:
        """Whether there are limits at all."""
        return self != RollingLimits()


def next_batch(
    waiting: Sequence[str],
    in_progress: Collection[str],
    workers: Iterable[WorkerFacts],
    limits: RollingLimits,
) -> tuple[str, ...]:
    """Return which of *waiting* are to be restarted now, in that order.

    A worker that is unavailable anyway is restarted whatever its siblings do: that
    takes nobody away.

    Args:
        waiting: Names of those still to be restarted; one that *workers* lacks, as its
            service was scaled down meanwhile, is passed over.
        in_progress: Names of those whose restart has begun and is not over: they are
            unavailable, whatever *workers* says, as it may not show yet.
        workers: All of the services concerned.
    """
    known = {worker.name: worker for worker in workers}
    away = {
        name
        for name, worker in known.items()
        if name in in_progress or not worker.is_available
    }
    unavailable = Counter(known[name].service for name in away)
    batch: list[str] = []
    places = limits.max_concurrently
    for name in dict.fromkeys(waiting):
        if places is not None and len(in_progress) + len(batch) >= places:
            break
        if name not in known or name in in_progress:
            continue
        if name not in away:
            service, most = known[name].service, limits.max_unavailable
            if most is not None and unavailable[service] >= most:
                continue
            unavailable[service] += 1
        batch.append(name)
    return tuple(batch)
