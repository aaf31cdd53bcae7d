"""Decide when a scheduled run is due. Pure: the time comes in as *now*.

All moments are by the system's clock, in seconds since the epoch, because that is what
people mean by "at three": it may jump, and it goes on while the machine is suspended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Final, Literal, TypeAlias
from zoneinfo import ZoneInfo

from attrs import define, field, frozen

Overlap: TypeAlias = Literal["skip", "queue", "replace"]

# Debian's cron, cron(8): a clock that moves further than this has been corrected, and
# what it showed before means nothing any more [s].
_CORRECTION: Final = 3 * 3600.0
# A run that is late by more than this was missed [s]: busy machines are late, too.
_MISSED: Final = 60.0
_NICKNAMES: Final[Mapping[str, str]] = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@frozen
class RunTimes:
    """The moments of a schedule: a fixed interval, or the expression of a crontab."""

    every: float | None = None
    """[s]"""
    cron: str = ""
    """Expression of crontab(5)."""
    zone: tzinfo = UTC
    """Time zone of *cron*."""

    def after(self, moment: float) -> float:
        """Return the first moment of the schedule after *moment*.

        Raises:
            ValueError: the crontab has no moment within the next fifty years, such as
                the 30th of February.
        """
        if self.every is not None:
            return moment + self.every
        local = datetime.fromtimestamp(moment, self.zone)
        for found in _moments(self.cron, local):
            return found.timestamp()
        raise ValueError(f"{self.cron!r} never comes")

    def following(self, due: float, now: float) -> float:
        """Return the first moment after *now*, where *due* was one."""
        if self.every is None:
            return self.after(max(due, now))
        passed = max(0, int((now - due) // self.every))
        following = due + (passed + 1) * self.every
        return following if following > now else following + self.every


Verdict: TypeAlias = Literal["wait", "run", "missed"]


@define
class DueTime:
    """When the next run is due; moves on with each look at the clock."""

    times: RunTimes
    at: float
    """The next moment of the schedule."""
    catches_up: bool = True
    """Whether a missed run is made up for, once for any number of them."""
    delay: float = 0.0
    """Of the next run after that moment: its share of the jitter [s]."""
    _seen: float = field(default=float("-inf"), init=False)
    """What the clock showed at the last look."""

    @property
    def starts_at(self) -> float:
        """The moment of the next run."""
        return self.at + self.delay

    def look(self, now: float, delay: float = 0.0) -> Verdict:
        """Return what is to be done at *now*, and move on to the next moment.

        Args:
            delay: That of the run after this one, drawn by the caller [s].
        """
        went_back, self._seen = self._seen - now, now
        if self.times.every is not None:
            self.at = min(self.at, now + self.times.every)
        elif went_back > _CORRECTION:
            self.at = self.times.after(now)
        if now < self.starts_at:
            return "wait"
        is_missed = now - self.starts_at > _MISSED and not self.catches_up
        self.at, self.delay = self.times.following(self.at, now), delay
        return "missed" if is_missed else "run"


def check_cron(expression: str) -> None:
    """Check that *expression* is one of a crontab.

    Raises:
        ValueError: it is not; the message says what is wrong with it.
    """
    RunTimes(cron=expression).after(0.0)


def zone_of(name: str) -> tzinfo:
    """Return the time zone *name*, such as ``"Europe/Vienna"``.

    Raises:
        ValueError: this machine does not know it.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"no time zone is named {name!r}") from None


def _moments(expression: str, after: datetime) -> Iterator[datetime]:
    from cronsim import CronSim, CronSimError  # only for those that have a crontab

    try:
        return CronSim(_NICKNAMES.get(expression.lower(), expression), after)
    except CronSimError as exc:
        raise ValueError(str(exc).lower()) from None
