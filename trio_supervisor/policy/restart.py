"""Whether a process that ended is started again. Pure: time comes in as *now*."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Any, TypeAlias, assert_never

from attrs import define, field, frozen
from attrs.validators import ge, gt, instance_of, optional

_number = instance_of((int, float))
_optional_count: Any = optional([instance_of(int), ge(0)])


class RestartPolicy(Enum):
    """When an ended process is started again; systemd's and Docker's words.

    OTP calls them permanent, transient and temporary.
    """

    ALWAYS = "always"
    """Whatever it ended with."""
    ON_FAILURE = "on-failure"
    """Only when it failed: see `Ending.is_failure`."""
    NEVER = "never"


class Cause(Enum):
    """Why a process ended, as far as the controller had a hand in it."""

    EXIT = "exit"
    """It ended by itself, or someone else killed it."""
    SPAWN = "spawn"
    """It could not be started."""
    STARTUP_TIMEOUT = "startup_timeout"
    """It was not ready in time, and was stopped for that."""
    UNHEALTHY = "unhealthy"
    """Its heartbeats stopped, and it was stopped for that."""
    RESTART = "restart"
    """Somebody asked for a restart: planned."""
    STOP = "stop"
    """Somebody asked for a stop: planned."""


@frozen(kw_only=True)
class Ending:
    """How one incarnation of a process ended."""

    cause: Cause
    returncode: int | None
    """0 is success, -n is "killed by signal n", None is "never started"."""
    ready_for: float | None = None
    """How long it had been ready [s]; None: it never was."""

    @property
    def is_planned(self) -> bool:
        """Whether it ended because somebody asked."""
        return self.cause in (Cause.RESTART, Cause.STOP)

    @property
    def is_failure(self) -> bool:
        """Whether it ended in a way that it should not have."""
        return not self.is_planned and (
            self.cause is not Cause.EXIT or self.returncode != 0
        )


@frozen
class Restart:
    """Start it again, *delay* seconds from now."""

    delay: float


@frozen
class Leave:
    """Leave it ended; the others go on."""


@frozen
class GiveUp:
    """Too many restarts: stop everything."""

    restarts: int
    """How many there were within the period."""
    period: float
    """The length of the window [s]."""


Decision: TypeAlias = Restart | Leave | GiveUp


@frozen(kw_only=True)
class Backoff:
    """Delays before restarts: none at first, then exponential with full jitter.

    Source: M. Brooker, "Exponential Backoff and Jitter", AWS, 2015: *full jitter*
    draws the delay evenly from [0, min(cap, base * 2**n)].
    """

    base: float = field(default=0.05, validator=[_number, gt(0)])
    """The largest delay before the second restart in a row [s]."""
    # 0.5 s keeps the promise that a crash is repaired within a second, up to the
    # tenth in a row, after which the default intensity has given up anyway.
    cap: float = field(default=0.5, validator=[_number, gt(0)])
    """The largest delay at all [s]."""
    stable_after: float = field(default=10.0, validator=[_number, ge(0)])
    """A process ready for this long ran well: the next delay is none again [s]."""

    def delay(self, attempt: int, u: float) -> float:
        """The delay before restart number *attempt* since the last stable run [s].

        Args:
            attempt: From 0; the first restart is immediate.
            u: A number from [0, 1), drawn by the caller.
        """
        if attempt == 0:
            return 0.0
        # Beyond 2**64 the cap has long won; without min() a float overflows.
        return u * min(self.cap, self.base * 2.0 ** min(attempt - 1, 64))


@frozen(kw_only=True)
class RestartRules:
    """All that decides about restarts of one process."""

    policy: RestartPolicy = RestartPolicy.ALWAYS
    backoff: Backoff | None = field(factory=Backoff)
    """None: every restart is immediate."""
    intensity: int | None = field(default=10, validator=_optional_count)
    """So many restarts within ``period`` are borne, one more is not; None: any."""
    period: float = field(default=60.0, validator=[_number, gt(0)])
    """Length of the sliding window over which restarts are counted [s]."""


@define
class RestartHistory:
    """What is remembered between the incarnations of one process."""

    attempt: int = field(default=0, init=False)
    """Unplanned restarts since the last stable run."""
    _restarts: deque[float] = field(factory=deque, init=False)

    def decide(
        self, rules: RestartRules, ending: Ending, *, now: float, u: float
    ) -> Decision:
        """Decide what follows *ending*, and remember it.

        A planned restart is immediate, whatever the policy, and counts for nothing;
        a planned stop leaves the process ended.

        Args:
            now: The moment it ended [s], on any clock that never runs back.
            u: A number from [0, 1), drawn by the caller, that sets the jitter.
        """
        backoff, ready_for = rules.backoff, ending.ready_for
        # However it ended: a stable run before a planned restart was one as well.
        if backoff and ready_for is not None and ready_for >= backoff.stable_after:
            self.attempt = 0
        match ending.cause:
            case Cause.RESTART:
                return Restart(0.0)
            case Cause.STOP:
                return Leave()
        if not _is_wanted(rules.policy, ending):
            return Leave()
        if rules.intensity is not None:
            self._restarts.append(now)
            while self._restarts[0] < now - rules.period:
                self._restarts.popleft()
            if len(self._restarts) > rules.intensity:
                return GiveUp(len(self._restarts) - 1, rules.period)
        if backoff is None:
            return Restart(0.0)
        delay = backoff.delay(self.attempt, u)
        self.attempt += 1
        return Restart(delay)


def _is_wanted(policy: RestartPolicy, ending: Ending) -> bool:
    match policy:
        case RestartPolicy.ALWAYS:
            return True
        case RestartPolicy.ON_FAILURE:
            return ending.is_failure
        case RestartPolicy.NEVER:
            return False
    assert_never(policy)
