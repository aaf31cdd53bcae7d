"""Who is connected, and what the controller says of its workers, in one picture."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import trio
from attrs import define, field

from trio_supervisor.errors import (
    LimitExceededError,
    NoSuchWorkerError,
    NotConnectedError,
    UnavailableError,
)
from trio_supervisor.link.peer import Peer
from trio_supervisor.policy.addressing import (
    Address,
    AmbiguousNameError,
    NotManagedError,
    ambiguity,
    find_all,
    hint,
    process_id_of,
)
from trio_supervisor.wire.brief import brief
from trio_supervisor.wire.codec import to_fields
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.limits import MAX_STATE
from trio_supervisor.wire.messages import (
    Connection,
    Gone,
    WorkerRecord,
    WorkerStatus,
)

MAX_STRANGERS: Final = 1024
"""Workers that may register and that the controller did not start."""
MAX_STATES: Final = 8 * 1024 * 1024
"""The states of all of these together, as JSON [bytes]."""
# A line has 8 MiB, and what else is told of ten thousand workers has five.
_STATES_SHOWN: Final = 2 * 1024 * 1024
# Names of nobody are looked for among all; an operator types a few.
_OTHERS: Final = 256
# Not to be found by a word of a client: a name has no NUL that the controller knows.
_BY_PID: Final = "\0pid-"


@define(eq=False)
class Registered:
    """A worker's connection that has registered."""

    peer: Peer
    process_id: int
    state: dict[str, Any]
    size: int = 0
    """Of its state as JSON [bytes]."""
    connection_id: str = field(factory=lambda: str(uuid.uuid4()))
    _connection: Object | None = field(default=None, init=False)

    @property
    def own_name(self) -> str | None:
        """What it calls itself, where that is a name at all."""
        name = self.state.get("name")
        return name if isinstance(name, str) and name else None

    def to_short_connection(self) -> Object:
        """Return the same without the state, of which there is too much in all."""
        state = {
            "process_id": self.process_id,
            "name": self.own_name or "",
            "connection_id": self.connection_id,
            "note": f"{self.size} bytes left out: the states of all are too long",
        }
        return {
            "connection_id": self.connection_id,
            "process_id": self.process_id,
            "state": state,
        }

    def to_connection(self) -> Object:
        """Return the fields of its `Connection`, as Ruby's clients expect it."""
        if self._connection is None:
            connection = Connection(
                connection_id=self.connection_id,
                process_id=self.process_id,
                state={**self.state, "connection_id": self.connection_id},
            )
            self._connection = to_fields(connection)
        return self._connection

    def renew(self, state: dict[str, Any], size: int = 0) -> None:
        """Take in what it says of itself now."""
        self.state, self.size, self._connection = state, size, None


@define(eq=False)
class Registry:
    """All workers: the controller's, and those that came by themselves."""

    records: dict[str, WorkerRecord] = field(factory=dict, init=False)
    """By name, as the controller last said. While a new generation takes over, there
    are two of a name: then the newer of those that are ready."""
    connections: dict[str, Registered] = field(factory=dict, init=False)
    """By connection id."""
    restarts: int = field(default=0, init=False)
    """Of the supervisor itself."""

    _by_process: dict[tuple[str | None, int], list[Registered]] = field(
        factory=dict, init=False
    )
    """By its own name and process id; the newest is the last."""
    _all: dict[tuple[str, int], WorkerRecord] = field(factory=dict, init=False)
    """By name and generation."""
    _rows: dict[tuple[str, int], _Row] = field(factory=dict, init=False)
    _picture: list[_Row] | None = field(default=None, init=False)
    """The rows of all; None: something has changed since."""
    _strangers: list[Object] = field(factory=list, init=False)
    """The rows of those that the controller does not know, made with it."""
    _is_informed: bool = field(default=False, init=False)
    """Whether the controller has said anything yet."""
    _former: list[tuple[str | None, int]] = field(factory=list, init=False)
    """Names and process ids of workers that have another process now, or none."""
    _news: trio.Event = field(factory=trio.Event, init=False)
    _size: int = field(default=0, init=False)
    """Of all states as JSON [bytes]."""
    _addresses: dict[str, list[Address]] | None = field(default=None, init=False)
    """By each word that means one; None: something has changed since."""
    _is_ready: bool | None = field(default=None, init=False)
    """Whether all are ready; None: something has changed since."""

    def check_room(self, size: int) -> None:
        """Check that another one may register with a state of *size* bytes.

        Raises:
            LimitExceededError: too many have that the controller does not know.
        """
        strangers = len(self.connections) - len(self._all)
        if strangers >= MAX_STRANGERS:
            raise LimitExceededError(
                f"{strangers} workers that the controller did not start are registered "
                f"already"
            )
        if self._size + size > MAX_STATES + len(self._all) * MAX_STATE:
            raise LimitExceededError(
                f"the states of those that are registered have {self._size} bytes "
                f"already"
            )

    def add(self, worker: Registered) -> None:
        """Take in a connection."""
        self._size += worker.size
        self.connections[worker.connection_id] = worker
        key = (worker.own_name, worker.process_id)
        self._by_process.setdefault(key, []).append(worker)
        self._tell()

    def remove(self, worker: Registered) -> None:
        """Forget a connection."""
        if self.connections.pop(worker.connection_id, None) is None:
            return
        self._size -= worker.size
        key = (worker.own_name, worker.process_id)
        self._by_process[key].remove(worker)
        if not self._by_process[key]:
            del self._by_process[key]
        self._tell()

    def update(
        self,
        records: Iterable[WorkerRecord],
        restarts: int,
        gone: Iterable[Gone] = (),
    ) -> None:
        """Take in what the controller said."""
        records = tuple(records)
        for record in records:
            self._note_former(self._all.get(record.key), record)
        for each in gone:
            self._note_former(self._all.get((each.name, each.generation)), None)
        # First: one of the same name and generation may have taken its place.
        for each in gone:
            self._all.pop((each.name, each.generation), None)
            self._rows.pop((each.name, each.generation), None)
            self._choose(each.name, None)
        for record in records:
            self._all[record.key] = record
            self._choose(record.name, record)
        self.restarts = restarts
        self._is_informed = True
        self._tell()

    def replace(self, records: Iterable[WorkerRecord], restarts: int) -> None:
        """Take in all that the controller knows; what is not in it is forgotten."""
        records = tuple(records)
        kept = {record.key: record for record in records}
        for key, record in self._all.items():
            self._note_former(record, kept.get(key))
        self.records, self._all = {}, {}
        self.update(records, restarts)
        self._rows = {key: self._rows[key] for key in self._all if key in self._rows}

    def take_former(self) -> list[Registered]:
        """Return connections of processes that are their worker's no more, once each.

        Such a process has ended, or is about to.
        """
        former, self._former = self._former, []
        return [worker for each in former for worker in self._by_process.get(each, ())]

    def _note_former(self, old: WorkerRecord | None, new: WorkerRecord | None) -> None:
        if old is None or (process_id := old.process_id) is None:
            return
        if new is None or new.process_id != process_id:
            self._former.append((old.name, process_id))

    def doubt(self) -> None:
        """Count as not informed, until the next `update`: something was missed."""
        self._is_informed = False
        self._tell()

    @property
    def all_records(self) -> Mapping[tuple[str, int], WorkerRecord]:
        """The records of all generations, by name and generation."""
        return self._all

    def _choose(self, name: str, news: WorkerRecord | None) -> None:
        """Choose the record that goes by *name*, after *news* of one."""
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

    @property
    def is_informed(self) -> bool:
        """Whether the controller has said what it knows."""
        return self._is_informed

    async def wait_informed(self) -> None:
        """Wait until it has."""
        while not self._is_informed:
            await self._news.wait()

    async def wait_news(self) -> None:
        """Wait until anything of the picture changes."""
        await self._news.wait()

    async def wait_ready(self) -> None:
        """Wait until all workers are ready and connected.

        Raises:
            UnavailableError: one failed for good; the message names it.
        """
        while not self._is_informed or not self._is_all_ready:
            for record in self._all.values():
                if record.counts and record.state == "failed":
                    raise UnavailableError(f"{record.name} failed: {record.last_exit}")
            await self._news.wait()

    @property
    def _is_all_ready(self) -> bool:
        # Found out once for all that wait.
        if self._is_ready is None:
            self._is_ready = self._all_ready()
        return self._is_ready

    def _all_ready(self) -> bool:
        return all(
            record.state == "stopped"
            or (
                record.state == "ready"
                and record.is_stable
                and (not record.connects or self._worker_of(record) is not None)
            )
            for record in self._all.values()
            if record.counts
        )

    def _tell(self) -> None:
        self._picture = self._addresses = self._is_ready = None
        news, self._news = self._news, trio.Event()
        news.set()

    def record_of(self, worker: Registered) -> WorkerRecord | None:
        """Return what the controller says of the process behind a connection."""
        name = worker.own_name
        record = self.records.get(name) if name is not None else None
        if record is None or record.process_id == worker.process_id:
            return record
        if len(self._all) > len(self.records):
            for (other, _), elder in self._all.items():
                if other == name and elder.process_id == worker.process_id:
                    return elder
        return None

    def find(self, connection_id: str | None, name: str | None) -> Registered:
        """Return the connection of that id, or of the worker that *name* means.

        A name may also be a connection id, or a process id.

        Raises:
            NoSuchWorkerError: neither exists.
            NotConnectedError: the worker exists, and is not connected.
            AmbiguousNameError: several workers that registered on their own match.
        """
        if connection_id is not None:
            if (found := self.connections.get(connection_id)) is not None:
                return found
            raise NoSuchWorkerError(f"no connection has the id {brief(connection_id)}")
        word = name or ""
        if (record := self._record_meant(word)) is not None:
            if (worker := self._worker_of(record)) is not None:
                return worker
            raise NotConnectedError(
                f"{record.name} is not connected; it is {record.state}"
            )
        matching = self._find_all(word)
        if not matching:
            names = hint(self.records)
            raise NoSuchWorkerError(f"no worker has the name {brief(name)}{names}")
        if len(matching) > 1:
            raise AmbiguousNameError(ambiguity(word, matching))
        return self.connections[matching[0].connection_id or ""]

    def steerable(self, word: str) -> str:
        """Return the name that the controller knows *word* by.

        A connection id or a process id becomes the name of its worker. Names, and
        words that mean nothing here, are left to the controller.

        Raises:
            NotManagedError: it means a worker that registered on its own.
        """
        if word in self.records or any(
            record.service == word for record in self.records.values()
        ):
            return word
        if (record := self._record_meant(word)) is not None:
            return record.name
        matching = self._find_all(word)
        for one in matching:
            record = self.record_of(self.connections[one.connection_id or ""])
            if record is not None:
                return record.name
        if matching:
            raise NotManagedError(
                f"{matching[0]} was not started by this controller, which can neither "
                f"restart nor stop it nor read its output"
            )
        return word

    def _record_meant(self, word: str) -> WorkerRecord | None:
        """Return the controller's worker of that name, connection id or pid."""
        if (record := self.records.get(word)) is not None:
            return record
        if (worker := self.connections.get(word)) is not None:
            return self.record_of(worker)
        if (process_id := process_id_of(word)) is not None:
            for record in self._all.values():
                if record.process_id == process_id:
                    return record
        return None

    def _find_all(self, word: str) -> list[Address]:
        """Return all that are connected and that *word* means."""
        if self._addresses is None:
            self._addresses = {}
            for worker in self.connections.values():
                address = Address(
                    name=self._name_of(worker),
                    process_id=worker.process_id,
                    connection_id=worker.connection_id,
                    is_managed=self.record_of(worker) is not None,
                )
                for key in (address.name, worker.connection_id, _key_of(address)):
                    self._addresses.setdefault(key, []).append(address)
        process_id = process_id_of(word)
        found = self._addresses.get(word, [])
        if not found and process_id is not None:
            found = self._addresses.get(f"{_BY_PID}{process_id}", [])
        return find_all(word, list(dict.fromkeys(found)))

    def all_steerable(self, words: Iterable[str]) -> tuple[str, ...]:
        """Return `steerable` of each of *words*.

        Raises:
            NotManagedError: as for `steerable`.
            LimitExceededError: too many of them are neither workers nor services.
        """
        services = {record.service for record in self.records.values()}
        found, others = [], 0
        for word in dict.fromkeys(words):
            if word not in services and word not in self.records:
                others += 1
                if others > _OTHERS:
                    raise LimitExceededError(
                        f"more than {_OTHERS} names are of no worker and no service; "
                        f"the last one is {brief(word)}"
                    )
                word = self.steerable(word)
            found.append(word)
        return tuple(found)

    def is_connected(self, name: str) -> bool:
        """Whether the worker of that name is there, and connected."""
        record = self.records.get(name)
        return record is not None and self._worker_of(record) is not None

    def shown_connections(self) -> list[Object]:
        """Return the fields of all connections, with as many states as fit a line.

        Where they are too many, those of workers that the controller does not know are
        left out.
        """
        workers = self.connections.values()
        if self._size <= _STATES_SHOWN:
            return [worker.to_connection() for worker in workers]
        left, shown = _STATES_SHOWN, []
        for worker in workers:
            fits = worker.size <= left and self.record_of(worker) is not None
            left -= worker.size if fits else 0
            shown.append(
                worker.to_connection() if fits else worker.to_short_connection()
            )
        return shown

    def statuses(self, now: float) -> list[Object]:
        """Return the fields of a `WorkerStatus` each, the controller's workers first.

        What does not change with time is kept from one call to the next: with a
        thousand workers, putting it together takes longer than sending it.

        Args:
            now: By the system's monotonic clock [s].
        """
        if self._picture is None:
            self._picture = [
                self._row(key, record) for key, record in self._all.items()
            ]
            self._strangers = self._unmanaged()
        return [row.fields_at(now) for row in self._picture] + self._strangers

    def _row(self, key: tuple[str, int], record: WorkerRecord) -> _Row:
        """Return the row of *record*: the known one if it still holds."""
        worker = self._worker_of(record)
        row = self._rows.get(key)
        if row is None or row.record is not record or row.worker is not worker:
            row = self._rows[key] = _Row(record, worker)
        return row

    def _unmanaged(self) -> list[Object]:
        """Return the fields of a `WorkerStatus` of each that came by itself."""
        managed = sum(row.worker is not None for row in self._picture or ())
        if len(self.connections) == managed:
            return []
        return [
            to_fields(_unmanaged(self._name_of(worker), worker))
            for worker in self.connections.values()
            if self.record_of(worker) is None
        ]

    def _worker_of(self, record: WorkerRecord) -> Registered | None:
        if record.process_id is None:
            return None
        workers = self._by_process.get((record.name, record.process_id))
        return workers[-1] if workers else None

    def _name_of(self, worker: Registered) -> str:
        """Its own name if the controller knows it by that, or else a name of ours.

        A stranger cannot take the name of one of the controller's workers.
        """
        if (record := self.record_of(worker)) is not None:
            return record.name
        name = worker.own_name
        if name is None or name in self.records:
            return f"pid-{worker.process_id}"
        return name


@define(eq=False)
class _Row:
    """One of the controller's workers, and what `status` says of it."""

    record: WorkerRecord
    worker: Registered | None
    _fields: Object = field(init=False)

    def __attrs_post_init__(self) -> None:
        record, worker = self.record, self.worker
        status = WorkerStatus(
            name=record.name,
            service=record.service,
            process_id=record.process_id,
            state=record.state,
            connected=worker is not None,
            connection_id=worker.connection_id if worker else None,
            incarnation=record.incarnation,
            restarts=record.restarts,
            uptime=None,
            status=record.status,
            last_exit=record.last_exit,
            generation=record.generation,
            waiting_for=record.waiting_for,
            reason=record.reason,
            needs=record.needs,
            crashes=record.crashes,
            last_line=record.last_line,
            problem=record.problem,
        )
        self._fields = to_fields(status)

    def fields_at(self, now: float) -> Object:
        """Return the fields of its `WorkerStatus`, valid until the next call."""
        fields, record = self._fields, self.record
        fields["uptime"] = _since(record.started_at, now)
        fields["ready_for"] = _since(record.ready_at, now)
        if record.next_try_at is not None:
            fields["next_try_in"] = round(max(0.0, record.next_try_at - now), 3)
        return fields


def _key_of(address: Address) -> str:
    return f"{_BY_PID}{address.process_id}"


def _unmanaged(name: str, worker: Registered) -> WorkerStatus:
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


def _since(moment: float | None, now: float) -> float | None:
    return None if moment is None else round(max(0.0, now - moment), 3)


@define(eq=False)
class WorkerHandle:
    """A `Registered` as the monitors see it: see `MonitoredWorker`."""

    _worker: Registered
    _registry: Registry
    _restart: Callable[[str, int, str], Any]
    _clock: Callable[[], float]

    @property
    def connection_id(self) -> str:
        return self._worker.connection_id

    @property
    def name(self) -> str:
        return self._registry._name_of(self._worker)

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
    def uptime(self) -> float | None:
        record = self._registry.record_of(self._worker)
        return None if record is None else _since(record.started_at, self._clock())

    async def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        return await self._worker.peer.call(do, arguments)

    async def restart(self, reason: str) -> None:
        record = self._registry.record_of(self._worker)
        if record is None:
            raise NoSuchWorkerError(
                f"{self.name} is no child of the controller; it cannot be restarted"
            )
        await self._restart(record.name, record.incarnation, reason)
