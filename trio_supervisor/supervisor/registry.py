"""Keep the workers that the controller reported and those that are connected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.errors import LimitExceededError, UnavailableError
from trio_supervisor.supervisor.worker_connection import WorkerConnection
from trio_supervisor.wire.limits import MAX_STATE
from trio_supervisor.wire.workers import Gone, WorkerRecord

MAX_UNMANAGED: Final = 1024
"""Workers that may register although the controller did not start them."""
MAX_STATES: Final = 8 * 1024 * 1024
"""States of these workers together, as JSON [bytes]."""

Key = tuple[str, int]
"""Name and generation of a worker."""


@define(eq=False)
class Registry:
    """All workers: those of the controller, and those that registered on their own."""

    records: dict[str, WorkerRecord] = field(factory=dict, init=False)
    """By name. During a reload two generations share a name: this is then the newest
    that is ready."""
    connections: dict[str, WorkerConnection] = field(factory=dict, init=False)
    """By connection id."""
    restarts: int = field(default=0, init=False)
    """Restarts of the supervisor itself."""
    states_size: int = field(default=0, init=False)
    """Size of the states of all connections, as JSON [bytes]."""
    revision: int = field(default=0, init=False)
    """Incremented by each change: what is derived from a registry is valid for one."""

    _by_process: dict[tuple[str | None, int], list[WorkerConnection]] = field(
        factory=dict, init=False
    )
    """By the name in its state and process id; the newest connection is the last."""
    _all: dict[Key, WorkerRecord] = field(factory=dict, init=False)
    _is_informed: bool = field(default=False, init=False)
    _former: list[tuple[str | None, int]] = field(factory=list, init=False)
    """Names and process ids of workers that have another process now, or none."""
    _changed: trio.lowlevel.ParkingLot = field(
        factory=trio.lowlevel.ParkingLot, init=False
    )
    _is_ready: bool | None = field(default=None, init=False)
    """Whether all workers are ready; None: to be computed again after a change."""

    def check_room(self, size: int) -> None:
        """Check that another worker may register with a state of *size* bytes.

        Raises:
            LimitExceededError: too many workers registered on their own.
        """
        unmanaged = len(self.connections) - len(self._all)
        if unmanaged >= MAX_UNMANAGED:
            raise LimitExceededError(
                f"{unmanaged} workers that the controller did not start are already "
                f"registered; at most {MAX_UNMANAGED} may be"
            )
        most = MAX_STATES + len(self._all) * MAX_STATE
        if self.states_size + size > most:
            raise LimitExceededError(
                f"the states of registered workers already have {self.states_size} "
                f"bytes; at most {most} are accepted"
            )

    def add(self, worker: WorkerConnection) -> None:
        """Add a connection."""
        self.states_size += worker.size
        self.connections[worker.connection_id] = worker
        key = (worker.own_name, worker.process_id)
        self._by_process.setdefault(key, []).append(worker)
        self._note_change()

    def remove(self, worker: WorkerConnection) -> None:
        """Remove a connection, if it is there."""
        if self.connections.pop(worker.connection_id, None) is None:
            return
        self.states_size -= worker.size
        key = (worker.own_name, worker.process_id)
        self._by_process[key].remove(worker)
        if not self._by_process[key]:
            del self._by_process[key]
        self._note_change()

    def update(
        self,
        records: Iterable[WorkerRecord],
        restarts: int,
        gone: Iterable[Gone] = (),
    ) -> None:
        """Apply changes that the controller reported."""
        records = tuple(records)
        for record in records:
            self._note_former(self._all.get(record.key), record)
        for each in gone:
            self._note_former(self._all.get((each.name, each.generation)), None)
        # First: a worker of the same name and generation may have replaced this one.
        for each in gone:
            self._all.pop((each.name, each.generation), None)
            self._choose(each.name, None)
        for record in records:
            self._all[record.key] = record
            self._choose(record.name, record)
        self.restarts = restarts
        self._is_informed = True
        self._note_change()

    def replace(self, records: Iterable[WorkerRecord], restarts: int) -> None:
        """Apply a snapshot of the controller: forget all workers that it omits."""
        records = tuple(records)
        kept = {record.key: record for record in records}
        for key, record in self._all.items():
            self._note_former(record, kept.get(key))
        self.records, self._all = {}, {}
        self.update(records, restarts)

    def mark_outdated(self) -> None:
        """Count as not informed until the next `update`: one was missed."""
        self._is_informed = False
        self._note_change()

    def take_former(self) -> list[WorkerConnection]:
        """Return, once each, connections of processes that a worker no longer has.

        Such a process has exited or is about to.
        """
        former, self._former = self._former, []
        return [worker for each in former for worker in self._by_process.get(each, ())]

    def _note_former(self, old: WorkerRecord | None, new: WorkerRecord | None) -> None:
        if old is None or (process_id := old.process_id) is None:
            return
        if new is None or new.process_id != process_id:
            self._former.append((old.name, process_id))

    def _choose(self, name: str, news: WorkerRecord | None) -> None:
        """Choose the record for *name* after the change *news* to one of them."""
        known = self.records.get(name)
        is_alone = known is None or (
            news is not None
            and known.key == news.key
            and len(self._all) == len(self.records)
        )
        if news is not None and is_alone:
            self.records[name] = news
            return
        found = [record for (key, _), record in self._all.items() if key == name]
        if found:
            self.records[name] = max(
                found, key=lambda record: (record.state == "ready", record.generation)
            )
        else:
            self.records.pop(name, None)

    def _note_change(self) -> None:
        self._is_ready = None
        self.revision += 1
        self._changed.unpark_all()

    # Lookups.

    @property
    def all_records(self) -> Mapping[Key, WorkerRecord]:
        """The records of all generations, by name and generation."""
        return self._all

    def record_of(self, worker: WorkerConnection) -> WorkerRecord | None:
        """Return the record of the process behind a connection."""
        name = worker.own_name
        record = self.records.get(name) if name is not None else None
        if record is None or record.process_id == worker.process_id:
            return record
        if len(self._all) > len(self.records):
            for (other, _), elder in self._all.items():
                if other == name and elder.process_id == worker.process_id:
                    return elder
        return None

    def connection_of(self, record: WorkerRecord) -> WorkerConnection | None:
        """Return the newest connection of the process of *record*."""
        if record.process_id is None:
            return None
        workers = self._by_process.get((record.name, record.process_id))
        return workers[-1] if workers else None

    def is_connected(self, name: str) -> bool:
        """Return whether a worker of the controller has that name and a connection."""
        record = self.records.get(name)
        return record is not None and self.connection_of(record) is not None

    def name_of(self, worker: WorkerConnection) -> str:
        """Return the worker's name: its own, unless that belongs to another worker.

        A worker that registered on its own is then named after its process id.
        """
        if (record := self.record_of(worker)) is not None:
            return record.name
        name = worker.own_name
        if name is None or name in self.records:
            return f"pid-{worker.process_id}"
        return name

    # Waiting.

    @property
    def is_informed(self) -> bool:
        """Whether the controller has reported its workers."""
        return self._is_informed

    async def wait_informed(self) -> None:
        """Wait until the controller has reported its workers."""
        while not self._is_informed:
            await self._changed.park()

    async def wait_changed(self) -> None:
        """Wait until a worker or a connection changes."""
        await self._changed.park()

    async def wait_ready(self) -> None:
        """Wait until all workers are ready and connected.

        Raises:
            UnavailableError: a worker failed for good; the message names it.
        """
        while not self._is_informed or not self._is_all_ready:
            for record in self._all.values():
                if record.counts and record.state == "failed":
                    raise UnavailableError(f"{record.name} failed: {record.last_exit}")
            await self._changed.park()

    @property
    def _is_all_ready(self) -> bool:
        # Computed once for all callers that wait.
        if self._is_ready is None:
            self._is_ready = self._all_ready()
        return self._is_ready

    def _all_ready(self) -> bool:
        return all(
            self._is_one_ready(record) for record in self._all.values() if record.counts
        )

    def _is_one_ready(self, record: WorkerRecord) -> bool:
        if record.state == "stopped":
            return True
        is_ready = record.state == "ready" and record.is_stable
        return is_ready and (
            not record.connects or self.connection_of(record) is not None
        )
