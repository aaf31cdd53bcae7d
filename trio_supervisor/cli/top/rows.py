"""Compute the rows of the table from what the supervisor reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from trio_supervisor.cli.output import format_duration
from trio_supervisor.cli.status import WorkerFields, in_order, status_text
from trio_supervisor.cli.top.history import UsageHistory
from trio_supervisor.cli.top.sparkline import cpu_sparkline, memory_sparkline
from trio_supervisor.process.output.escaping import escape_line


class TopSnapshot(NamedTuple):
    """What was read at one moment."""

    headline: str
    """Supervisor and controller, in one line."""
    workers: list[WorkerFields]
    """Those of ``status``, each with ``usage`` if it is known."""
    lags: Mapping[str, float] = MappingProxyType({})
    """How late the event loop of each worker was [s], by name."""
    services: Sequence[str] = ()
    """All services, also those without workers; empty: not known."""
    problems: Sequence[str] = ()
    """Problems of monitors, a line each."""


class TopRow(NamedTuple):
    """A worker, or the total of a service."""

    key: str
    """Identifies the row from one moment to the next."""
    name: str
    service: str
    is_service: bool
    state: str
    process_id: int | None = None
    uptime: float | None = None
    restarts: int = 0
    cpu: float | None = None
    memory: float | None = None
    lag: float | None = None
    cpu_sparks: str = ""
    memory_sparks: str = ""
    status: str = ""
    worker_count: int = 1
    """Workers of its service."""
    is_managed: bool = True

    @property
    def cells(self) -> list[str]:
        """The texts of the columns; control characters are escaped."""
        name = (
            self.name if self.is_service or self.worker_count < 2 else f"  {self.name}"
        )
        return [
            escape_line(name),
            escape_line(self.state),
            str(self.process_id or "-"),
            format_duration(self.uptime),
            str(self.restarts),
            _percent(self.cpu),
            self.cpu_sparks,
            _size(self.memory),
            self.memory_sparks,
            _lag(self.lag),
            escape_line(self.status),
        ]


def record(snapshot: TopSnapshot, history: UsageHistory) -> None:
    """Add the usage in *snapshot* to *history*."""
    for worker in snapshot.workers:
        if worker["process_id"]:
            history.add(worker["process_id"], _cpu(worker), _memory(worker))
    history.keep_only([worker["process_id"] for worker in snapshot.workers])


def rows_of(snapshot: TopSnapshot, history: UsageHistory, sparks: int) -> list[TopRow]:
    """Return the rows by service, in the order of ``status``.

    A service with one worker has a row for this worker only; any other has a row of
    its own above its workers.

    Args:
        sparks: Characters of a sparkline.
    """
    by_service: dict[str, list[WorkerFields]] = {}
    for worker in in_order(snapshot.workers):
        by_service.setdefault(worker["service"], []).append(worker)
    rows: list[TopRow] = []
    keys: set[str] = set()
    for service, workers in by_service.items():
        count = _count(workers)
        found = [
            _worker_row(worker, snapshot.lags, history, sparks, count, keys)
            for worker in workers
        ]
        if len(found) > 1:
            rows.append(_service_row(service, found))
        rows += found
    rows += [
        _service_row(service, [])
        for service in snapshot.services
        if service not in by_service
    ]
    return rows


def _count(workers: list[WorkerFields]) -> int:
    """Return how many workers the service has: in a reload, of the latest generation.

    Workers that registered on their own are not the service's.
    """
    managed = [worker for worker in workers if worker["is_managed"]]
    latest = max((worker.get("generation", 1) for worker in managed), default=1)
    return sum(worker.get("generation", 1) == latest for worker in managed)


def _worker_row(
    worker: WorkerFields,
    lags: Mapping[str, float],
    history: UsageHistory,
    sparks: int,
    count: int,
    keys: set[str],
) -> TopRow:
    process_id = worker["process_id"]
    name = str(worker["name"])
    key = f"worker {name} {worker.get('generation', 1)}"
    if key in keys or not worker["is_managed"]:
        key += f" {worker.get('connection_id')} {len(keys)}"
    keys.add(key)
    return TopRow(
        key=key,
        name=name,
        service=worker["service"],
        is_service=False,
        state=str(worker["state"]),
        process_id=process_id,
        uptime=worker["uptime"],
        restarts=worker["restarts"],
        cpu=_cpu(worker),
        memory=_memory(worker),
        lag=lags.get(name),
        cpu_sparks=cpu_sparkline(history.cpu(process_id), sparks),
        memory_sparks=memory_sparkline(history.memory(process_id), sparks),
        status=str(status_text(worker)),
        worker_count=count,
        is_managed=worker["is_managed"],
    )


def _service_row(service: str, rows: list[TopRow]) -> TopRow:
    ready = sum(row.state == "ready" for row in rows)
    return TopRow(
        key=f"service {service}",
        name=service,
        service=service,
        is_service=True,
        state=f"{ready}/{len(rows)}",
        restarts=sum(row.restarts for row in rows),
        cpu=_total(row.cpu for row in rows),
        memory=_total(row.memory for row in rows),
        lag=max((row.lag for row in rows if row.lag is not None), default=None),
        worker_count=rows[0].worker_count if rows else 0,
        is_managed=any(row.is_managed for row in rows) if rows else True,
    )


def _total(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _cpu(worker: WorkerFields) -> float | None:
    share: float | None = (worker.get("usage") or {}).get("cpu_share")
    return share


def _memory(worker: WorkerFields) -> float | None:
    usage = worker.get("usage") or {}
    size: float | None = usage.get("pss") or usage.get("rss")
    return size


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    return f"{share:.1%}" if share < 0.9995 else f"{share:.0%}"


def _size(size: float | None) -> str:
    if size is None:
        return "-"
    mebibytes = size / 2**20
    if mebibytes < 1000:
        return f"{mebibytes:.1f}M" if mebibytes < 100 else f"{mebibytes:.0f}M"
    return f"{mebibytes / 1024:.2f}G"


def _lag(lag: float | None) -> str:
    if lag is None:
        return "-"
    return f"{lag * 1000:.0f}ms" if lag < 1 else f"{lag:.1f}s"
