"""When the workers of a service run, where they do not run all the time. Pure."""

from __future__ import annotations

from typing import Final

from attrs import field, frozen

from trio_supervisor.application import checks
from trio_supervisor.application.fields import (
    Checked,
    checked_later,
    documented,
    option,
)
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.run_times import Overlap, check_cron, zone_of

_LEAST_INTERVAL: Final = 0.1


def _checked_cron(value: str | None, field: str = "") -> str | None:
    if value is None:
        return None
    if not checks.is_text(value):
        raise SpecError(field, f"expected a string, got {checks.shown(value)}")
    try:
        check_cron(value)
    except ValueError as exc:
        raise SpecError(
            field,
            f'expected five fields as in crontab(5), such as "0 3 * * *", got '
            f"{checks.shown(value)}: {exc}",
        ) from None
    return value


def _checked_zone(value: str | None, field: str = "") -> str | None:
    if value is None:
        return None
    if not checks.is_text(value):
        raise SpecError(field, f"expected a string, got {checks.shown(value)}")
    try:
        zone_of(value)
    except ValueError as exc:
        problem = 'expected a name such as "Europe/Vienna"'
        raise SpecError(field, f"{problem}: {exc}") from None
    return value


@documented
@frozen(kw_only=True, slots=False, field_transformer=checked_later)
class Timetable(Checked):
    """When the workers of a service run: at intervals, or as a crontab says.

    Example::

        Timetable(cron="0 3 * * *", timezone="Europe/Vienna", timeout=3600)

    Raises:
        SpecError: the value of an option is not valid; the message names the option.
    """

    every: float | None = field(
        default=None,
        converter=checks.seconds_or_none,
        metadata=option(
            "Interval between the starts of two runs; the first is one interval after "
            "the start of the application.",
            unit="s",
            least=_LEAST_INTERVAL,
        ),
    )
    cron: str | None = field(
        default=None,
        converter=_checked_cron,
        metadata=option(
            "Moments of the runs as in crontab(5), such as `0 3 * * *`, with the rules "
            "of Debian's cron for summer time; `@daily` and the like are understood. "
            "Either this or `every`."
        ),
    )
    timezone: str | None = field(
        default=None,
        converter=_checked_zone,
        metadata=option(
            "Time zone of `cron`, such as `Europe/Vienna`; `None`: that of the system."
        ),
    )
    jitter: float = field(
        default=0.0,
        converter=checks.seconds_or_zero,
        metadata=option(
            "Each run is delayed by a random time up to this one.", unit="s", least=0
        ),
    )
    timeout: float | None = field(
        default=None,
        converter=checks.seconds_or_none,
        metadata=option(
            "Longest time that a run may take; a process that takes longer is stopped, "
            "and the run has failed. `None` sets no limit.",
            unit="s",
        ),
    )
    overlap: Overlap = field(
        default="skip",
        metadata=option(
            "What happens when a run is due while the one before is still going on: it "
            'is left out (`"skip"`), it starts as soon as that one has ended '
            '(`"queue"`, at most one waits), or it replaces that one (`"replace"`).',
            choices=("skip", "queue", "replace"),
        ),
    )
    catch_up: bool = field(
        default=True,
        converter=checks.flag,
        metadata=option(
            "Whether runs that were missed, because the machine was suspended or the "
            "application was not running, are made up for by one run."
        ),
    )

    def __attrs_post_init__(self) -> None:
        """Check the options, and that the moments are given once."""
        super().__attrs_post_init__()
        if (self.every is None) == (self.cron is None):
            raise SpecError("every", "expected either every or cron")
        if self.timezone is not None and self.cron is None:
            raise SpecError("timezone", "is for cron only")
        if self.every is not None and self.jitter > self.every:
            raise SpecError("jitter", f"expected at most every ({self.every:g} s)")

    def __str__(self) -> str:
        if self.every is not None:
            return f"every {self.every:g} s"
        return f"{self.cron}" + (f" ({self.timezone})" if self.timezone else "")

    def described(self) -> str:
        """Return all options, in words, for the plan of a reload."""
        options = [str(self), self.overlap]
        times = {name: getattr(self, name) for name in ("jitter", "timeout")}
        options += [f"{name}={value:g}" for name, value in times.items() if value]
        return ", ".join(options + ([] if self.catch_up else ["catch_up=False"]))


def timetable_or_none(value: Timetable | None, field: str = "") -> Timetable | None:
    """Return *value* if it is None or a `Timetable`."""
    if value is not None and not isinstance(value, Timetable):
        problem = "expected a Timetable or None"
        raise SpecError(field, f"{problem}, got {checks.shown(value)}")
    return value
