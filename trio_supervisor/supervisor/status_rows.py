"""Return what ``status`` shows of the workers and connections in a registry."""

from __future__ import annotations

from typing import Final

from attrs import define, field

from trio_supervisor.supervisor.registry import Key, Registry
from trio_supervisor.supervisor.worker_connection import WorkerConnection
from trio_supervisor.wire.codec import to_fields
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.workers import WorkerRecord, WorkerStatus

# A line has 8 MiB, and the status of ten thousand workers takes five of them.
_STATES_SHOWN: Final = 2 * 1024 * 1024


@define(eq=False)
class StatusRows:
    """The status of all workers; unchanged parts are cached between calls.

    With a thousand workers, computing it takes longer than sending it.
    """

    _registry: Registry
    _rows: dict[Key, _Row] = field(factory=dict, init=False)
    """One for each worker of the controller, in its order."""
    _unmanaged: list[Object] = field(factory=list, init=False)
    """The status of each worker that registered on its own."""
    _revision: int | None = field(default=None, init=False)
    """Revision of the registry that these were made for."""

    def statuses(self, now: float) -> list[Object]:
        """Return the fields of each `WorkerStatus`, the controller's workers first.

        Args:
            now: The system's monotonic clock [s].
        """
        if self._revision != self._registry.revision:
            self._refresh()
        rows = [row.fields_at(now) for row in self._rows.values()]
        return rows + self._unmanaged

    def connections(self) -> list[Object]:
        """Return the fields of all connections, with as many states as fit in a line.

        If they are too long, states of workers that registered on their own go first.
        """
        registry = self._registry
        workers = registry.connections.values()
        if registry.states_size <= _STATES_SHOWN:
            return [worker.to_connection() for worker in workers]
        left, shown = _STATES_SHOWN, []
        for worker in workers:
            fits = worker.size <= left and registry.record_of(worker) is not None
            left -= worker.size if fits else 0
            shown.append(
                worker.to_connection() if fits else worker.to_short_connection()
            )
        return shown

    def _refresh(self) -> None:
        registry, known = self._registry, self._rows
        self._rows = {
            key: self._row(known.get(key), record)
            for key, record in registry.all_records.items()
        }
        self._unmanaged = self._make_unmanaged()
        self._revision = registry.revision

    def _row(self, known: _Row | None, record: WorkerRecord) -> _Row:
        """Return the row of *record*: the *known* one if it still holds."""
        worker = self._registry.connection_of(record)
        if known is None or known.record is not record or known.worker is not worker:
            return _Row(record, worker)
        return known

    def _make_unmanaged(self) -> list[Object]:
        registry = self._registry
        managed = sum(row.worker is not None for row in self._rows.values())
        if len(registry.connections) == managed:
            return []
        return [
            to_fields(_unmanaged(registry.name_of(worker), worker))
            for worker in registry.connections.values()
            if registry.record_of(worker) is None
        ]


@define(eq=False)
class _Row:
    """The status of one worker of the controller."""

    record: WorkerRecord
    worker: WorkerConnection | None
    _fields: Object = field(init=False)

    def __attrs_post_init__(self) -> None:
        connection_id = self.worker.connection_id if self.worker is not None else None
        self._fields = to_fields(WorkerStatus.of(self.record, connection_id))

    def fields_at(self, now: float) -> Object:
        """Return the fields of its `WorkerStatus`, valid until the next call."""
        # A call of `since` for each of a thousand workers would take a tenth of the
        # time of the whole answer.
        fields, record = self._fields, self.record
        if (started_at := record.started_at) is not None:
            fields["uptime"] = round(now - started_at, 3) if now > started_at else 0.0
        if (ready_at := record.ready_at) is not None:
            fields["ready_for"] = round(now - ready_at, 3) if now > ready_at else 0.0
        if record.next_try_at is not None:
            fields["next_try_in"] = round(max(0.0, record.next_try_at - now), 3)
        return fields


def _unmanaged(name: str, worker: WorkerConnection) -> WorkerStatus:
    return WorkerStatus(
        name=name,
        service=None,
        process_id=worker.process_id,
        state="ready",
        connected=True,
        connection_id=worker.connection_id,
        incarnation=1,
        restarts=0,
        uptime=None,
        is_managed=False,
    )


def since(moment: float | None, now: float) -> float | None:
    """Return the time from *moment* to *now* [s]; None if there is no moment."""
    return None if moment is None else round(max(0.0, now - moment), 3)
