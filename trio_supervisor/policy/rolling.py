"""Choose which workers of a planned restart are next. Pure.

For ``restart --rolling --max-unavailable N`` and ``max_restarts_concurrently``. The
caller asks again whenever the state of a worker has changed.
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
    """What a rolling restart needs to know about one worker."""

    name: str
    service: str
    is_available: bool
    """Whether it is doing its work, and is meant to."""


@frozen(kw_only=True)
class RollingLimits:
    """Limits of a rolling restart."""

    max_unavailable: int | None = field(default=None, validator=_optional_positive)
    """Maximum number of unavailable workers per service; None: no limit."""
    max_concurrently: int | None = field(default=None, validator=_optional_positive)
    """Maximum number of planned restarts at the same time; None: no limit."""

    @property
    def are_any(self) -> bool:
        """Whether any limit is set."""
        return self != RollingLimits()


def next_batch(
    waiting: Sequence[str],
    in_progress: Collection[str],
    workers: Iterable[WorkerFacts],
    limits: RollingLimits,
) -> tuple[str, ...]:
    """Return which of *waiting* to restart now, in this order.

    A worker that is unavailable anyway is restarted regardless of its siblings,
    because that does not reduce the number of available workers.

    Args:
        waiting: Names of the workers still to be restarted. A name that is not in
            *workers*, because its service was scaled down, is skipped.
        in_progress: Names of the workers whose restart has begun and is not complete.
            They count as unavailable, even if *workers* does not show it yet.
        workers: All workers of the services concerned.
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
