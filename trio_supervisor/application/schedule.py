"""Declare something that runs at times: a service or a command with a timetable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trio_supervisor.application.command import Command
from trio_supervisor.application.service import Service
from trio_supervisor.application.timetable import Timetable
from trio_supervisor.policy.run_times import Overlap


def Schedule(  # noqa: N802 - reads as a declaration, beside Service and Command
    name: str,
    what: Callable[..., Any] | Sequence[str],
    *,
    every: float | None = None,
    cron: str | None = None,
    timezone: str | None = None,
    jitter: float = 0.0,
    timeout: float | None = None,
    overlap: Overlap = "skip",
    catch_up: bool = True,
    **options: Any,
) -> Service | Command:
    """Return a service, or a command, that runs by a schedule.

    Example::

        Application([
            Schedule("nightly", ["./backup.sh"], cron="0 3 * * *"),
            Schedule("tidy", tidy_up, every=600, timeout=60, backend="sync"),
        ])

    Args:
        what: A function, as the target of a `Service`, or a program and its arguments,
            as those of a `Command`.
        every, cron, timezone, jitter, timeout, overlap, catch_up: See `Timetable`.
        options: Further options of the `Service` or `Command`.

    Raises:
        SpecError: the value of an option is not valid; the message names the option.
    """
    timetable = Timetable(
        every=every,
        cron=cron,
        timezone=timezone,
        jitter=jitter,
        timeout=timeout,
        overlap=overlap,
        catch_up=catch_up,
    )
    if callable(what):
        return Service(name, what, schedule=timetable, **options)
    return Command(name, what, schedule=timetable, **options)
