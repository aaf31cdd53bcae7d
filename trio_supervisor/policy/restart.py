"""Decide whether a process that exited is restarted. Pure: time comes in as *now*."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, TypeAlias, assert_never

from attrs import define, field, frozen
from attrs.validators import ge, gt, instance_of, optional

from trio_supervisor.policy.window import Window

_number = instance_of((int, float))
_optional_count: Any = optional([instance_of(int), ge(0)])

SUCCESS: Final = frozenset({0})
"""Return codes that mean success by default."""

CRASH_LOOP: Final = 5
"""Number of crashes in a row that make a crash loop: nothing waits for the worker any
longer, and the log reports only some of the crashes that follow."""
_STABLE_AFTER: Final = 10.0
# So that the log of any day shows a crash loop that began the day before.
_REPORT_INTERVAL: Final = 600.0


class RestartPolicy(Enum):
    """When a process that exited is restarted, in the words of systemd and Docker.

    OTP calls them permanent, transient and temporary.
    """

    ALWAYS = "always"
    """After every exit."""
    ON_FAILURE = "on-failure"
    """Only after a failure: see `Ending.is_failure`."""
    NEVER = "never"


class Cause(Enum):
    """Why a process ended, as far as the controller was involved."""

    EXIT = "exit"
    """It exited on its own, or was killed by another process."""
    SPAWN = "spawn"
    """It could not be started."""
    NO_CODE = "no_code"
    """No process has the code of its generation, and the files have changed."""
    SHORTAGE = "shortage"
    """It could not be started because the controller lacks descriptors, processes or
    memory: not the worker's fault."""
    STARTUP_TIMEOUT = "startup_timeout"
    """It was stopped because it was not ready within startup_timeout."""
    UNHEALTHY = "unhealthy"
    """It was stopped because its heartbeats stopped (health_check_timeout)."""
    RESTART = "restart"
    """A restart was requested: planned."""
    STOP = "stop"
    """A stop was requested: planned."""
    SCALE = "scale"
    """Its service was scaled down: planned, not restarted."""
    RELOAD = "reload"
    """A new generation replaced it: planned, not restarted."""
    IDLE = "idle"
    """It was not needed, and starts again on demand: planned, not restarted."""
    LIFETIME = "lifetime"
    """It reached max_lifetime: a planned restart."""
    MONITOR = "monitor"
    """A monitor requested a restart: planned."""
    WORKER = "worker"
    """The worker requested its own restart: planned."""
    GROUP = "group"
    """It is restarted because another worker of its group crashed: planned."""


_PLANNED_RESTARTS: Final = frozenset(
    {Cause.RESTART, Cause.LIFETIME, Cause.MONITOR, Cause.WORKER, Cause.GROUP}
)
_PLANNED_STOPS: Final = frozenset({Cause.STOP, Cause.SCALE, Cause.RELOAD, Cause.IDLE})


@frozen(kw_only=True)
class Ending:
    """How one incarnation of a process ended."""

    cause: Cause
    returncode: int | None
    """Exit code; -n: killed by signal n; None: never started."""
    ready_for: float | None = None
    """How long it had been ready and healthy [s]; None: it never was ready."""
    success: frozenset[int] = SUCCESS
    """Return codes that mean success: those of its `RestartRules`."""

    @property
    def is_planned(self) -> bool:
        """Whether the controller stopped it for a reason other than a failure."""
        return self.cause in _PLANNED_RESTARTS or self.cause in _PLANNED_STOPS

    @property
    def is_failure(self) -> bool:
        """Whether it failed: it was not planned, and not a successful exit."""
        return not self.is_planned and (
            self.cause is not Cause.EXIT or self.returncode not in self.success
        )


@frozen
class RestartAfter:
    """Restart the process *delay* seconds from now."""

    delay: float


@frozen
class Leave:
    """Do not restart the process; the others keep running."""


@frozen
class GiveUp:
    """The restart limit is reached: the group of the service fails."""

    restarts: int
    """Number of restarts within the period: the intensity."""
    period: float
    """Length of the window [s]."""
    problem: str = ""
    """What failed, if it is more than this process: its group."""
    delay: float = field(default=0.0, eq=False)
    """Delay of the restart if the enclosing group restarts the process [s]."""


Decision: TypeAlias = RestartAfter | Leave | GiveUp


@frozen(kw_only=True)
class Backoff:
    """Delays between restarts: none at first, then exponential with full jitter.

    Source: M. Brooker, "Exponential Backoff and Jitter", AWS, 2015: *full jitter*
    draws the delay evenly from [0, min(cap, base * 2**n)].
    """

    # Up to the sixth crash in a row a crash is repaired within a second, as promised;
    # from the twelfth on the cap applies.
    base: float = field(
        default=0.05,
        validator=[_number, gt(0)],
        metadata={
            "doc": "Largest delay before the second restart in a row.",
            "unit": "s",
        },
    )
    cap: float = field(
        default=60.0,
        validator=[_number, gt(0)],
        metadata={
            "doc": "Largest delay before any restart.",
            "unit": "s",
        },
    )
    stable_after: float = field(
        default=_STABLE_AFTER,
        validator=[_number, ge(0)],
        metadata={
            "doc": "Time that a worker must be ready and healthy to end a crash loop: "
            "the restart after its next crash is immediate again.",
            "unit": "s",
        },
    )

    def delay(self, attempt: int, u: float) -> float:
        """Return the delay before restart number *attempt* since a stable run [s].

        Args:
            attempt: From 0: the first restart is immediate.
            u: A random number from [0, 1), drawn by the caller.
        """
        if attempt == 0:
            return 0.0
        # The cap applies long before 2**64; without min() a float would overflow.
        return u * min(self.cap, self.base * 2.0 ** min(attempt - 1, 64))


# Maximum time between two checks for lost code [s]; a check starts no process.
_NO_CODE_DELAY: Final = 2.0
# Resources may become available at any time; until then, do not add to the load.
_SHORTAGE_BACKOFF: Final = Backoff(base=0.1, cap=5.0)


@frozen(kw_only=True)
class RestartRules:
    """The options that decide about restarts of one process."""

    policy: RestartPolicy = RestartPolicy.ALWAYS
    backoff: Backoff | None = field(factory=Backoff)
    """Delays between restarts; None: no delay."""
    intensity: int | None = field(default=None, validator=_optional_count)
    """Maximum number of restarts within ``period``; None: no limit."""
    period: float = field(default=60.0, validator=[_number, gt(0)])
    """Length of the sliding window in which restarts are counted [s]."""
    success: frozenset[int] = SUCCESS
    """Return codes that mean success."""
    give_up_on: frozenset[int] = frozenset()
    """Return codes after which a restart would not help; -n is signal n."""

    @property
    def stable_after(self) -> float:
        """How long a process must be ready and healthy to end its crash loop [s]."""
        return _STABLE_AFTER if self.backoff is None else self.backoff.stable_after

    def ending(
        self, cause: Cause, returncode: int | None, ready_for: float | None = None
    ) -> Ending:
        """Return the ending of a process that has these rules."""
        return Ending(
            cause=cause,
            returncode=returncode,
            ready_for=ready_for,
            success=self.success,
        )


@define
class RestartHistory:
    """Recent crashes and restarts of one process, over its incarnations."""

    attempt: int = field(default=0, init=False)
    """Crashes in a row: unplanned restarts since the last stable run."""
    shortages: int = field(default=0, init=False)
    """Starts in a row that failed because the controller lacked resources."""
    _restarts: Window = field(factory=Window, init=False)
    _reported_at: float = field(default=0.0, init=False)
    """When a crash was last reported [s]."""

    def decide(
        self, rules: RestartRules, ending: Ending, *, now: float, u: float
    ) -> Decision:
        """Return what follows *ending*, and record it.

        A planned restart is immediate with any policy, and does not count towards
        the restart limit. After a planned stop, or an exit in *give_up_on*, the
        process is not restarted. A start that failed for lack of resources is retried
        with any policy, and does not count either.

        Args:
            ending: Made by `RestartRules.ending`.
            now: When it ended [s], by any monotonic clock.
            u: A random number from [0, 1), drawn by the caller, for the jitter.
        """
        if ending.cause is Cause.SHORTAGE:
            self.shortages += 1
            return RestartAfter(_SHORTAGE_BACKOFF.delay(self.shortages, u))
        # For every cause: a planned restart may end a stable run, too.
        if ending.ready_for is not None and ending.ready_for >= rules.stable_after:
            self.attempt = 0
        if ending.cause in _PLANNED_RESTARTS:
            return RestartAfter(0.0)
        if ending.cause in _PLANNED_STOPS:
            return Leave()
        if ending.cause is Cause.NO_CODE:
            # Not the fault of the process: retry, ignoring the policy and the limit.
            self.attempt += 1
            return RestartAfter(_NO_CODE_DELAY * (1 + u) / 2)
        if not _is_wanted(rules, ending):
            return Leave()
        delay = self.next_delay(rules, u)
        if rules.intensity is not None:
            restarts = self._restarts.add(now, rules.period)
            if restarts > rules.intensity:
                return GiveUp(restarts - 1, rules.period, delay=delay)
        return RestartAfter(delay)

    def next_delay(self, rules: RestartRules, u: float) -> float:
        """Return the delay before the next restart, and record a crash [s].

        Args:
            u: As for `decide`.
        """
        attempt, self.attempt = self.attempt, self.attempt + 1
        return 0.0 if rules.backoff is None else rules.backoff.delay(attempt, u)

    def started(self) -> None:
        """Record that a process was started: no resources are lacking any more."""
        self.shortages = 0

    def reset_limit(self) -> None:
        """Reset the restart limit: the worker's group was restarted as a whole.

        The backoff is kept. Otherwise two workers that crash and are restarted together
        would reset each other's delays, and crash without any delay.
        """
        self._restarts.clear()

    def end_crash_loop(self) -> None:
        """Reset the backoff: the process is stable, or an operator restarted it."""
        self.attempt = 0

    def should_report(self, now: float) -> bool:
        """Return whether to log the crash of the last `decide`.

        In a crash loop a crash is logged each time their number doubles, and at least
        every ten minutes.

        Args:
            now: As for `decide` [s].
        """
        is_power_of_two = self.attempt & (self.attempt - 1) == 0
        is_new = self.attempt <= CRASH_LOOP or is_power_of_two
        if is_new or now - self._reported_at >= _REPORT_INTERVAL:
            self._reported_at = now
            return True
        return False


def lifetime(longest: float, u: float) -> float:
    """Return the lifetime of one process [s].

    It is up to a tenth shorter than *longest*, so that workers that were started
    together are not all replaced together.

    Args:
        longest: The option ``max_lifetime`` [s].
        u: A random number from [0, 1), drawn by the caller for each process.
    """
    return longest * (1 - u / 10)


def _is_wanted(rules: RestartRules, ending: Ending) -> bool:
    # The code of a process that we stopped is of our own making.
    if ending.cause is Cause.EXIT and ending.returncode in rules.give_up_on:
        return False
    match rules.policy:
        case RestartPolicy.ALWAYS:
            return True
        case RestartPolicy.ON_FAILURE:
            return ending.is_failure
        case RestartPolicy.NEVER:
            return False
    assert_never(rules.policy)
