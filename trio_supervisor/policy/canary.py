"""Judge a canary: compare new workers with the old ones that run beside them. Pure.

All are observed for the same time, so their figures can be compared as they are. What
happens to old workers as well is not the fault of the release.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final

from attrs import frozen

from trio_supervisor.errors import SpecError
from trio_supervisor.policy.crash_text import describe_delay
from trio_supervisor.policy.leak import SteadyGrowth, find_growth
from trio_supervisor.policy.memory import DEFAULT_THRESHOLD, mebibytes
from trio_supervisor.policy.metric_totals import Key
from trio_supervisor.wire.limits import CANARY_SECONDS, MAX_CANARY

EXITS: Final = 3
"""Exits that end the observation at once: one may have another cause, and the second
may be a consequence of the first."""
RESTARTS: Final = 2
"""Restarts that a monitor or the worker itself requested: one may be due anyway, such
as the one after a number of requests."""
SIGNIFICANCE: Final = 0.05
"""Probability with which a worker that is no worse exits that often; the usual one."""

ERRORS: Final = 10
"""Fewest errors that count."""
ERROR_RATIO: Final = 2.0
"""How many times the errors of an old worker a canary must have."""
ERROR_SIGNIFICANCE: Final = 0.001
"""As `SIGNIFICANCE`; less, since errors come in bursts and are compared each tick."""

MEMORY_RATIO: Final = 1.5
"""Memory of a canary, as a multiple of the largest old worker's. That one has run for
longer, so it is normally the larger one, by its caches."""
MEMORY_MARGIN: Final = 64 * 1024 * 1024
"""How much more it must be at least [bytes]: several times what a worker needs to
import a library for its first request."""
SUSTAINED: Final = 10.0
"""How long it must be that much [s]; a quarter of a shorter observation."""
GROWTH: Final = DEFAULT_THRESHOLD
"""Growth in the second half of the observation that may be a leak [bytes]; the same
that a `MemoryMonitor` counts as an increase."""
GROWTH_RATIO: Final = 2.0
"""How many times as fast as every old worker it must grow."""

LATE: Final = 0.1
"""How late an event loop is when clients notice it [s]: Nielsen, "Response Times: The 3
Important Limits", 1993."""
LATE_SHARE: Final = 1 / 3
"""Part of the time in which a canary's event loop must be late. One heartbeat of
`BEATS` that is late by chance is less."""
LATE_RATIO: Final = 3.0
"""How many times the part of the old workers that must be."""
BEATS: Final = 4
"""Fewest heartbeats for which event loops are compared."""

_ERROR_NAMES: Final = ("errors_total", "failures_total")
# Above this number of events the normal distribution is exact enough.
_MANY: Final = 1000


@frozen(kw_only=True)
class CanaryTrial:
    """How a canary is tried; made by `canary_trial`."""

    workers: int
    """Maximum number of new workers of each service."""
    seconds: float
    """How long they are observed once they are ready [s]."""


def canary_trial(
    workers: int | None, seconds: float | None, *, dry_run: bool = False
) -> CanaryTrial | None:
    """Return how a canary is tried; None: there is none.

    Raises:
        SpecError: a number is out of range, or they do not go together.
    """
    if workers is None:
        if seconds is not None:
            raise SpecError("canary_for", "has no effect without canary")
        return None
    if dry_run:
        raise SpecError("canary", "cannot be combined with dry_run")
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        problem = f"expected a number of workers, 1 or more, got {workers!r:.80}"
        raise SpecError("canary", problem)
    if seconds is None:
        seconds = CANARY_SECONDS
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds <= MAX_CANARY:
        problem = f"expected more than 0 and at most {MAX_CANARY:.0f} s"
        raise SpecError("canary_for", f"{problem}, got {seconds!r:.80}")
    return CanaryTrial(workers=workers, seconds=float(seconds))


@frozen(kw_only=True)
class ObservedWorker:
    """What was seen of one worker since the observation began."""

    name: str
    exits: int = 0
    """Exits that were not planned, also with exit code 0; failed starts."""
    last_exit: str = ""
    """How it exited last, such as ``exit code 1``."""
    restarts: int = 0
    """Restarts that a monitor or the worker itself requested."""
    restart_reason: str = ""
    """Why it was restarted last."""
    is_ready: bool = True
    is_down: bool = False
    """Whether it has exited and is not started again."""
    trouble: str = ""
    """If it is not ready: its state, for people."""
    errors: float | None = None
    """What its error counters have counted; None: it has none, or they are not read."""
    sizes: tuple[tuple[float, int], ...] = ()
    """Resident memory [bytes] of its present process, with the time since the
    observation began [s]."""
    lags: tuple[float, ...] = ()
    """How late its event loop was, at regular times [s]."""


@frozen(kw_only=True)
class ObservedService:
    """The canaries of one service, and the old workers of the same service."""

    canaries: Sequence[ObservedWorker]
    """At least one."""
    others: Sequence[ObservedWorker]
    """At least one."""
    elapsed: float
    """Time since the observation began [s]."""
    seconds: float
    """How long it takes [s]."""

    @property
    def is_over(self) -> bool:
        """Whether the observation has ended: this is the last judgement."""
        return self.elapsed >= self.seconds


def judge(service: ObservedService) -> str:
    """Return why the canaries of *service* are worse than its old workers.

    Empty: they are not, or not yet.
    """
    rules: Sequence[Callable[[ObservedService], str]] = (
        _end_problem,
        _exit_problem,
        _error_problem,
        _size_problem,
    )
    at_the_end: Sequence[Callable[[ObservedService], str]] = (
        _readiness_problem,
        _restart_problem,
        _growth_problem,
        _lag_problem,
    )
    for rule in chain(rules, at_the_end if service.is_over else ()):
        if problem := rule(service):
            return problem
    return ""


# One rule each.


def _end_problem(service: ObservedService) -> str:
    for canary in service.canaries:
        if canary.is_down:
            how = canary.last_exit or canary.trouble
            return f"{_new(canary)} exited and is not restarted: {how}"
    return ""


def _exit_problem(service: ObservedService) -> str:
    exits = [each.exits for each in service.canaries]
    others = [each.exits for each in service.others]
    least = 1 if service.is_over else EXITS
    if sum(exits) < least or not _is_more(exits, others, SIGNIFICANCE):
        return ""
    worst = max(service.canaries, key=lambda each: each.exits)
    how = f" ({worst.last_exit})" if worst.last_exit else ""
    text = f"{_new(worst)} exited {_times(worst.exits)} in {_within(service)}{how}"
    return f"{text}; {_compared(others, 'did')}"


def _restart_problem(service: ObservedService) -> str:
    restarts = [each.restarts for each in service.canaries]
    others = [each.restarts for each in service.others]
    if sum(restarts) < RESTARTS or not _is_more(restarts, others, SIGNIFICANCE):
        return ""
    worst = max(service.canaries, key=lambda each: each.restarts)
    why = f" ({worst.restart_reason})" if worst.restart_reason else ""
    times = f"{_times(worst.restarts)} in {_within(service)}"
    text = f"{_new(worst)} was restarted {times}{why}"
    return f"{text}; {_compared(others, 'was')}"


def _readiness_problem(service: ObservedService) -> str:
    if not all(each.is_ready for each in service.others):
        return ""
    for canary in service.canaries:
        if not canary.is_ready:
            when = f"after {_within(service)}"
            return f"{_new(canary)} is not ready {when} ({canary.trouble})"
    return ""


def _error_problem(service: ObservedService) -> str:
    counts = {each: each.errors for each in service.canaries if each.errors is not None}
    others = [each.errors for each in service.others if each.errors is not None]
    if not (counts and others) or sum(counts.values()) < ERRORS:
        return ""
    usual = sum(others) / len(others)
    is_much = sum(counts.values()) / len(counts) >= ERROR_RATIO * usual
    if not (is_much and _is_more([*counts.values()], others, ERROR_SIGNIFICANCE)):
        return ""
    worst = max(counts, key=lambda each: counts[each])
    text = f"{_new(worst)} counted {counts[worst]:.0f} errors in {_within(service)}"
    return f"{text}; a worker of the old one counted {usual:.1f} on average"


def _size_problem(service: ObservedService) -> str:
    sustained = min(SUSTAINED, service.seconds / 4)
    if service.elapsed < sustained or (largest := _largest(service.others)) is None:
        return ""
    limit = max(MEMORY_RATIO * largest, largest + MEMORY_MARGIN)
    for canary in service.canaries:
        first = canary.sizes[0][0] if canary.sizes else service.elapsed
        since = service.elapsed - sustained
        lately = [size for time, size in canary.sizes if time >= since]
        if lately and first <= since and min(lately) > limit:
            size, when = mebibytes(lately[-1]), f"after {_within(service)}"
            text = f"{_new(canary)} uses {size} of memory {when}"
            return f"{text}; the largest of the old one uses {mebibytes(largest)}"
    return ""


def _growth_problem(service: ObservedService) -> str:
    largest = _largest(service.others)
    if largest is None:
        return ""
    growths = [_growth_of(each, service) for each in service.others]
    usual = max((each.rate for each in growths if each is not None), default=0.0)
    for canary in service.canaries:
        growth = _growth_of(canary, service)
        # One that is smaller than an old worker may just fill the same cache.
        if growth is None or growth.size <= largest:
            continue
        if growth.rate >= GROWTH_RATIO * usual:
            per_minute = mebibytes(round(60 * growth.rate))
            size = mebibytes(growth.size)
            text = f"{_new(canary)} grew steadily by {per_minute} per minute to {size}"
            return f"{text}; no worker of the old one grew half as fast"
    return ""


def _growth_of(worker: ObservedWorker, service: ObservedService) -> SteadyGrowth | None:
    window = service.seconds / 2
    return find_growth(worker.sizes, window=window, rate=GROWTH / window)


def _lag_problem(service: ObservedService) -> str:
    old = [_late_share(each) for each in service.others if each.lags]
    if not old:
        return ""
    usual = sum(old) / len(old)
    for canary in service.canaries:
        share = _late_share(canary)
        if share >= LATE_SHARE and share >= LATE_RATIO * usual:
            late = f"was late by more than {LATE:g} s for {share:.0%} of the time"
            text = f"the event loop of {_new(canary)} {late}"
            return f"{text}; those of the old one for {usual:.0%}"
    return ""


def _late_share(worker: ObservedWorker) -> float:
    if not worker.lags:
        return 0.0
    return sum(lag > LATE for lag in worker.lags) / len(worker.lags)


def _largest(workers: Sequence[ObservedWorker]) -> int | None:
    return max((size for each in workers for _, size in each.sizes), default=None)


# Words.


def _new(worker: ObservedWorker) -> str:
    return f"{worker.name} of the new generation"


def _within(service: ObservedService) -> str:
    return describe_delay(service.elapsed)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _compared(others: Sequence[int], verb: str) -> str:
    if not sum(others):
        return f"no worker of the old one {verb}"
    who = "the worker" if len(others) == 1 else f"the {len(others)} workers"
    together = "" if len(others) == 1 else " together"
    return f"{who} of the old one {verb} {_times(sum(others))}{together}"


# Numbers.


def error_count(totals: Mapping[Key, float]) -> float | None:
    """Return how many errors the metrics of a process show; None: they show none.

    These are counters whose names end in ``errors_total`` or ``failures_total``, and of
    other counters the series with the label ``5xx``, such as those of web services.
    """
    errors = [
        value
        for (kind, name, labels, _), value in totals.items()
        if kind == "counter" and (name.endswith(_ERROR_NAMES) or "5xx" in labels)
    ]
    return sum(errors) if errors else None


def _is_more(
    canaries: Sequence[float], others: Sequence[float], significance: float
) -> bool:
    """Return whether *canaries* have more events than chance explains.

    Any event is more, if the *others* have none. Else: the conditional test of two
    Poisson rates, J. Przyborowski and H. Wilenski, Biometrika 31, 1940.
    """
    if not sum(others):
        return sum(canaries) > 0
    count = math.ceil(sum(canaries))
    share = len(canaries) / (len(canaries) + len(others))
    return binomial_tail(count, count + math.ceil(sum(others)), share) < significance


def binomial_tail(least: int, count: int, probability: float) -> float:
    """Return the probability of at least *least* successes in *count* trials.

    Args:
        probability: Of a success in one trial, above 0 and below 1.
    """
    if least <= 0:
        return 1.0
    if count > _MANY:
        mean = count * probability
        deviation = math.sqrt(mean * (1 - probability))
        return math.erfc((least - 0.5 - mean) / deviation / math.sqrt(2)) / 2
    return min(1.0, math.fsum(_binomial(least, count, probability)))


def _binomial(least: int, count: int, probability: float) -> Iterator[float]:
    logarithm, other = math.log(probability), math.log1p(-probability)
    for k in range(least, count + 1):
        ways = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        yield math.exp(ways + k * logarithm + (count - k) * other)
