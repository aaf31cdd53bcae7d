"""What is known of one worker: each field is declared once.

`WorkerInfo` has the fields that the controller tells the supervisor and the supervisor
tells clients. A field that is added to it appears in ``status`` as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import Attribute, field, fields, frozen
from attrs.validators import ge


def _beginning_with(
    *names: str,
) -> Callable[[type, list[Attribute[Any]]], list[Attribute[Any]]]:
    """Put the fields *names* first: protocol 1 has always sent them in that order."""

    def arrange(_: type, found: list[Attribute[Any]]) -> list[Attribute[Any]]:
        order = {name: place for place, name in enumerate(names)}
        return sorted(found, key=lambda each: order.get(each.name, len(order)))

    return arrange


@frozen(kw_only=True)
class ScheduleStatus:
    """The runs of a worker that has a schedule."""

    when: str
    """The schedule, for people: ``every 60 s``."""
    next_run_at: float | None = None
    """[s since the epoch]; None: the schedule is paused (``stop``)."""
    last_run_at: float | None = None
    """When the last run that has ended began [s since the epoch]; None: none has."""
    last_run_seconds: float | None = None
    """How long that took."""
    last_result: str = ""
    """How that ended, for people: ``exit code 0``."""


@frozen(kw_only=True)
class CanaryStatus:
    """The observation of a new worker, before a reload replaces the others."""

    since: float
    """When it began [s since the epoch]."""
    until: float
    """When it ends, unless the worker fails before [s since the epoch]."""


@frozen(kw_only=True)
class WorkerInfo:
    """The fields of a worker that the controller fills and clients see."""

    name: str
    service: str | None
    """None: the worker was not started by the controller."""
    state: str
    """A value of ``policy.lifecycle.State``."""
    process_id: int | None
    """None: it has no process at the moment."""
    incarnation: int = field(validator=ge(0))
    """Processes started so far; the first is 1."""
    restarts: int = field(validator=ge(0))
    """Restarts of any kind."""
    status: str = ""
    """The last STATUS= that it sent (sd_notify)."""
    last_exit: str = ""
    """How its previous process exited, for people."""
    generation: int = field(default=1, validator=ge(1))
    """Incremented by each reload."""
    waiting_for: str = ""
    """The dependencies that it waits for before it starts, for people."""
    reason: str = ""
    """Why this incarnation replaced the previous one, for people."""
    needs: tuple[str, ...] = ()
    """Dependencies of its service, such as ``db (ready)``."""
    crashes: int = field(default=0, validator=ge(0))
    """Consecutive crashes since it was last stable."""
    last_line: str = ""
    """The last line that its previous process printed."""
    problem: str = ""
    """Known cause of that exit, such as ``port 80 is held by nginx, pid 7``."""
    schedule: ScheduleStatus | None = None
    """None: it is meant to run all the time."""
    canary: CanaryStatus | None = None
    """While a reload compares it with the old workers of its service."""
    connects: bool = True
    """Whether it connects to the supervisor; a command does not."""


@frozen(
    kw_only=True,
    field_transformer=_beginning_with(
        *("name", "service", "state", "process_id", "incarnation", "restarts"),
        *("started_at", "ready_at", "status", "last_exit", "connects", "generation"),
        *("waiting_for", "reason", "needs", "is_stable", "crashes", "next_try_at"),
        *("last_line", "problem", "counts", "may"),
    ),
)
class WorkerRecord(WorkerInfo):
    """A worker as the controller reports it to the supervisor."""

    service: str
    started_at: float | None
    """When its process was started, by the system's monotonic clock [s]."""
    ready_at: float | None = None
    """When it reported that it is ready, by the same clock [s]."""
    is_stable: bool = True
    """Whether it has been ready for ``stable_for`` of its service."""
    next_try_at: float | None = None
    """In backoff: when it is restarted, by the system's monotonic clock [s]."""
    counts: bool = True
    """Whether the application is ready only if this worker is. False during a reload
    for the workers of the next generation, and for those that are stopped for good."""
    may: tuple[str, ...] = ()
    """Operations that its connections may call (``may`` of its service)."""

    @property
    def key(self) -> tuple[str, int]:
        """Name and generation: unique even during a reload."""
        return self.name, self.generation


@frozen(
    kw_only=True,
    field_transformer=_beginning_with(
        *("name", "service", "process_id", "state", "connected", "connection_id"),
        *("incarnation", "restarts", "uptime", "ready_for", "status", "last_exit"),
        *("is_managed", "generation", "waiting_for", "reason", "needs", "crashes"),
        *("next_try_in", "last_line", "problem"),
    ),
)
class WorkerStatus(WorkerInfo):
    """A worker as the supervisor reports it to clients."""

    connected: bool
    """Whether it is connected to the supervisor."""
    connection_id: str | None
    uptime: float | None
    """Time since its process was started [s]."""
    ready_for: float | None = None
    """Time since it reported that it is ready [s]."""
    is_managed: bool = True
    """False: the controller did not start it; it connected on its own."""
    next_try_in: float | None = None
    """In backoff: time until it is restarted [s]."""

    @classmethod
    def of(cls, record: WorkerRecord, connection_id: str | None) -> WorkerStatus:
        """Return the status of a worker of the controller, without the times."""
        shared = {name: getattr(record, name) for name in _SHARED}
        is_connected = connection_id is not None
        return cls(
            **shared, connected=is_connected, connection_id=connection_id, uptime=None
        )


_SHARED = tuple(each.name for each in fields(WorkerInfo))


@frozen(kw_only=True)
class Gone:
    """A worker that will not return: scaled down, or of a previous generation."""

    name: str
    generation: int
