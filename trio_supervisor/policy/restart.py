"""Whether a process that ended is started again. Pure: time comes in as *now*."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, TypeAlias, assert_never

from attrs import define, field, frozen
from attrs.validators import ge, gt, instance_of, optional

from trio_supervisor.policy.window import Window

_number = instance_of((int, float))
_optional_count: Any = optional([instance_of(int), ge(0)])

SUCCESS: Final = frozenset({0})
"""The returncodes of success, unless a service says otherwise."""

CRASH_LOOP: Final = 5
"""So many crashes in a row are a crash loop: nothing waits for the worker any more,
and the log reports only some of what follows."""
_STABLE_AFTER: Final = 10.0
# Operators who look at the log of a day find a crash loop that began the day before.
_LONGEST_SILENCE: Final = 600.0


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
    NO_CODE = "no_code"
    """No process has the code of its generation any more, and the files differ."""
    SHORTAGE = "shortage"
    """It could not be started for lack of descriptors, processes or memory of ours: no
    fault of the worker."""
    STARTUP_TIMEOUT = "startup_timeout"
    """It was not ready in time, and was stopped for that."""
    UNHEALTHY = "unhealthy"
    """Its heartbeats stopped, and it was stopped for that."""
    RESTART = "restart"
    """Somebody asked for a restart: planned."""
    STOP = "stop"
    """Somebody asked for a stop: planned."""
    SCALE = "scale"
    """Its service was scaled down: planned, and nothing follows."""
    RELOAD = "reload"
    """A new generation took its place: planned, and nothing follows."""
    LIFETIME = "lifetime"
    """It ran for as long as it may: a planned restart."""
    MONITOR = "monitor"
    """A monitor asked for a restart: planned."""
    GROUP = "group"
    """It is restarted because a sibling crashed: planned."""


_PLANNED_RESTARTS: Final = frozenset(
    {Cause.RESTART, Cause.LIFETIME, Cause.MONITOR, Cause.GROUP}
)
_PLANNED_STOPS: Final = frozenset({Cause.STOP, Cause.SCALE, Cause.RELOAD})


@frozen(kw_only=True)
class Ending:
    """How one incarnation of a process ended."""

    cause: Cause
    returncode: int | None
    """0 is success, -n is "killed by signal n", None is "never started"."""
    ready_for: float | None = None
    """How long it had been ready and well [s]; None: it never was ready."""
    success: frozenset[int] = SUCCESS
    """The returncodes that are no failure: those of its `RestartRules`."""

    @property
    def is_planned(self) -> bool:
        """Whether the controller ended it for no fault of its own."""
        return self.cause in _PLANNED_RESTARTS or self.cause in _PLANNED_STOPS

    @property
    def is_failure(self) -> bool:
        """Whether it ended in a way that it should not have."""
        return not self.is_planned and (
            self.cause is not Cause.EXIT or self.returncode not in self.success
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
    """The restart limit is reached: stop everything, unless a group bears it."""

    restarts: int
    """How many there were within the period."""
    period: float
    """The length of the window [s]."""
    problem: str = ""
    """What failed, in words, where it is more than this process: its group."""
    delay: float = field(default=0.0, eq=False)
    """How long the restart is delayed where a group bears it [s]."""


Decision: TypeAlias = Restart | Leave | GiveUp


@frozen(kw_only=True)
class Backoff:
    """Delays before restarts: none at first, then exponential with full jitter.

    Source: M. Brooker, "Exponential Backoff and Jitter", AWS, 2015: *full jitter*
    draws the delay evenly from [0, min(cap, base * 2**n)].
    """

    # Up to the sixth crash in a row the delays keep the promise that a crash is
    # repaired within a second; from the twelfth on the cap applies.
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
        """The delay before restart number *attempt* since the last stable run [s].

        Args:
            attempt: From 0; the first restart is immediate.
            u: A number from [0, 1), drawn by the caller.
        """
        if attempt == 0:
            return 0.0
        # Beyond 2**64 the cap has long won; without min() a float overflows.
        return u * min(self.cap, self.base * 2.0 ** min(attempt - 1, 64))


# Between two looks for code that was lost, up to [s]: it costs no process.
_NO_CODE_DELAY: Final = 2.0
# The limit may be lifted at any moment, and the machine is busy enough until then.
_SHORTAGE_BACKOFF: Final = Backoff(base=0.1, cap=5.0)


@frozen(kw_only=True)
class RestartRules:
    """All that decides about restarts of one process."""

    policy: RestartPolicy = RestartPolicy.ALWAYS
    backoff: Backoff | None = field(factory=Backoff)
    """None: every restart is immediate."""
    intensity: int | None = field(default=None, validator=_optional_count)
    """Restart limit: at most so many within ``period``; None: any number."""
    period: float = field(default=60.0, validator=[_number, gt(0)])
    """Length of the sliding window over which restarts are counted [s]."""
    success: frozenset[int] = SUCCESS
    """The returncodes that are no failure."""
    give_up_on: frozenset[int] = frozenset()
    """The returncodes after which a restart would not help: -n is signal n."""

    @property
    def stable_after(self) -> float:
        """How long a process is ready and well until its crash loop is over [s]."""
        return _STABLE_AFTER if self.backoff is None else self.backoff.stable_after

    def ending(
        self, cause: Cause, returncode: int | None, ready_for: float | None = None
    ) -> Ending:
        """Return the ending of a process that is under these rules."""
        return Ending(
            cause=cause,
            returncode=returncode,
            ready_for=ready_for,
            success=self.success,
        )


@define
class RestartHistory:
    """What is remembered between the incarnations of one process."""

    attempt: int = field(default=0, init=False)
    """Crashes in a row: unplanned restarts since the last stable run."""
    shortages: int = field(default=0, init=False)
    """Starts in a row that failed for lack of resources of ours."""
    _restarts: Window = field(factory=Window, init=False)
    _told_at: float = field(default=0.0, init=False)
    """When a crash was reported last [s]."""

    def decide(
        self, rules: RestartRules, ending: Ending, *, now: float, u: float
    ) -> Decision:
        """Decide what follows *ending*, and remember it.

        A planned restart is immediate, whatever the policy, and counts for nothing;
        a planned stop leaves the process ended, and so does an exit that the rules
        give up on. A start that failed for lack of resources is tried again, whatever
        the policy, and counts for nothing either.

        Args:
            ending: As `RestartRules.ending` makes it.
            now: The moment it ended [s], on any clock that never runs back.
            u: A number from [0, 1), drawn by the caller, that sets the jitter.
        """
        if ending.cause is Cause.SHORTAGE:
            self.shortages += 1
            return Restart(_SHORTAGE_BACKOFF.delay(self.shortages, u))
        # However it ended: a stable run before a planned restart was one as well.
        if ending.ready_for is not None and ending.ready_for >= rules.stable_after:
            self.attempt = 0
        if ending.cause in _PLANNED_RESTARTS:
            return Restart(0.0)
        if ending.cause in _PLANNED_STOPS:
            return Leave()
        if ending.cause is Cause.NO_CODE:
            # No fault of its own, whatever the policy and the limit: it waits.
            self.attempt += 1
            return Restart(_NO_CODE_DELAY * (1 + u) / 2)
        if not _is_wanted(rules, ending):
            return Leave()
        delay = 0.0
        if rules.backoff is not None:
            delay = rules.backoff.delay(self.attempt, u)
        self.attempt += 1
        if rules.intensity is not None:
            restarts = self._restarts.add(now, rules.period)
            if restarts > rules.intensity:
                return GiveUp(restarts - 1, rules.period, delay=delay)
        return Restart(delay)

    def started(self) -> None:
        """Note that a process was started: there is no shortage any more."""
        self.shortages = 0

    def forgive(self) -> None:
        """Reset the restart limit: the worker's group was restarted as a whole.

        The backoff is kept. Two workers that crash and are restarted together would
        otherwise reset each other's delays, and crash as fast as they can.
        """
        self._restarts.clear()

    def end_crash_loop(self) -> None:
        """Reset the backoff: the process runs well, or the operator asked for it."""
        self.attempt = 0

    def is_told(self, now: float) -> bool:
        """Return whether to report the crash that was decided about last.

        Those of a crash loop are reported at each doubling of their number, and at
        least every ten minutes.

        Args:
            now: As for `decide` [s].
        """
        is_power_of_two = self.attempt & (self.attempt - 1) == 0
        is_new = self.attempt <= CRASH_LOOP or is_power_of_two
        if is_new or now - self._told_at >= _LONGEST_SILENCE:
            self._told_at = now
            return True
        return False


def lifetime(longest: float, u: float) -> float:
    """Return how long one process is to live, of *longest* at most [s].

    Up to a tenth less, so that workers that were started together do not all end
    together.

    Args:
        longest: `max_lifetime` [s].
        u: A number from [0, 1), drawn by the caller for each process.
    """
    return longest * (1 - u / 10)


def _is_wanted(rules: RestartRules, ending: Ending) -> bool:
    # What we killed, for whatever cause, ended with a code of our own making.
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
