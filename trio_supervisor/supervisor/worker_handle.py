"""A connected worker as monitors see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define

from trio_supervisor.errors import NoSuchWorkerError
from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.supervisor.status_rows import since
from trio_supervisor.supervisor.worker_connection import WorkerConnection
from trio_supervisor.wire.workers import WorkerRecord


@define(eq=False)
class WorkerHandle:
    """A `MonitoredWorker` of a supervisor."""

    _worker: WorkerConnection
    _registry: Registry
    _restart: Callable[[WorkerRecord, str], Any]
    _clock: Callable[[], float]

    @property
    def connection_id(self) -> str:
        return self._worker.connection_id

    @property
    def name(self) -> str:
        return self._registry.name_of(self._worker)

    @property
    def process_id(self) -> int:
        return self._worker.process_id

    @property
    def state(self) -> Mapping[str, Any]:
        return self._worker.state

    @property
    def is_ready(self) -> bool:
        record = self._registry.record_of(self._worker)
        return record is None or record.state == "ready"

    @property
    def is_managed(self) -> bool:
        return self._registry.record_of(self._worker) is not None

    @property
    def incarnation(self) -> int:
        """Number of its present process; 0: unknown."""
        record = self._registry.record_of(self._worker)
        return 0 if record is None else record.incarnation

    @property
    def uptime(self) -> float | None:
        record = self._registry.record_of(self._worker)
        return None if record is None else since(record.started_at, self._clock())

    async def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        return await self._worker.peer.call(do, arguments)

    async def restart(self, reason: str) -> None:
        record = self._registry.record_of(self._worker)
        if record is None:
            raise NoSuchWorkerError(
                f"{self.name} was not started by the controller; it cannot be restarted"
            )
        await self._restart(record, reason)
