"""Find the worker that a name, a connection id or a process id means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import define, field

from trio_supervisor.errors import (
    LimitExceededError,
    NoSuchWorkerError,
    NotConnectedError,
)
from trio_supervisor.policy.addressing import (
    Address,
    AmbiguousNameError,
    NotManagedError,
    ambiguity,
    find_all,
    hint,
    process_id_of,
)
from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.supervisor.worker_connection import WorkerConnection
from trio_supervisor.wire.brief import brief
from trio_supervisor.wire.workers import WorkerRecord

# Each unknown name is compared with all workers; an operator types a few.
_MOST_UNKNOWN: Final = 256
# A client cannot send this prefix as a name: the controller's names have no NUL.
_BY_PID: Final = "\0pid-"


@define(eq=False)
class WorkerNames:
    """The names of the workers in one registry."""

    _registry: Registry
    _addresses: dict[str, list[Address]] = field(factory=dict, init=False)
    """Connected workers by each word that means one."""
    _revision: int | None = field(default=None, init=False)
    """Revision of the registry that `_addresses` was made for."""

    def find(self, connection_id: str | None, name: str | None) -> WorkerConnection:
        """Return the connection with that id, or of the worker that *name* means.

        A name may also be a connection id, or a process id.

        Raises:
            NoSuchWorkerError: neither exists.
            NotConnectedError: the worker exists but is not connected.
            AmbiguousNameError: several workers that registered on their own match.
        """
        registry = self._registry
        if connection_id is not None:
            if (found := registry.connections.get(connection_id)) is not None:
                return found
            raise NoSuchWorkerError(f"no connection has the id {brief(connection_id)}")
        word = name or ""
        if (record := self._find_record(word)) is not None:
            if (worker := registry.connection_of(record)) is not None:
                return worker
            raise NotConnectedError(
                f"{record.name} is not connected (state: {record.state})"
            )
        matching = self._find_connected(word)
        if not matching:
            names = hint(registry.records)
            raise NoSuchWorkerError(f"no worker has the name {brief(name)}{names}")
        if len(matching) > 1:
            raise AmbiguousNameError(ambiguity(word, matching))
        return registry.connections[matching[0].connection_id or ""]

    def record(self, word: str) -> WorkerRecord | None:
        """Return the record of the controller's worker that *word* means.

        Raises:
            NotManagedError: as for `to_managed`.
        """
        return self._registry.records.get(self.to_managed(word))

    def to_managed(self, word: str) -> str:
        """Return the name by which the controller knows *word*.

        A connection id or a process id becomes the name of its worker. Names, and
        unknown words, are returned as they are: the controller answers for these.

        Raises:
            NotManagedError: *word* means a worker that registered on its own.
        """
        records = self._registry.records
        if word in records or any(each.service == word for each in records.values()):
            return word
        if (record := self._find_record(word)) is not None:
            return record.name
        matching = self._find_connected(word)
        for one in matching:
            worker = self._registry.connections[one.connection_id or ""]
            if (record := self._registry.record_of(worker)) is not None:
                return record.name
        if matching:
            raise NotManagedError(
                f"{matching[0]} was not started by this controller, which cannot "
                "restart it, stop it or read its output"
            )
        return word

    def all_to_managed(self, words: Iterable[str]) -> tuple[str, ...]:
        """Return `to_managed` of each of *words*, once each.

        Raises:
            NotManagedError: as for `to_managed`.
            LimitExceededError: too many of *words* are neither workers nor services.
        """
        records = self._registry.records
        services = {record.service for record in records.values()}
        found, unknown = [], 0
        for word in dict.fromkeys(words):
            if word not in services and word not in records:
                unknown += 1
                if unknown > _MOST_UNKNOWN:
                    raise LimitExceededError(
                        f"more than {_MOST_UNKNOWN} names mean no worker and no "
                        f"service; the last one is {brief(word)}"
                    )
                word = self.to_managed(word)
            found.append(word)
        return tuple(found)

    def _find_record(self, word: str) -> WorkerRecord | None:
        """Return the controller's worker with that name, connection id or pid."""
        registry = self._registry
        if (record := registry.records.get(word)) is not None:
            return record
        if (worker := registry.connections.get(word)) is not None:
            return registry.record_of(worker)
        if (process_id := process_id_of(word)) is not None:
            for record in registry.all_records.values():
                if record.process_id == process_id:
                    return record
        return None

    def _find_connected(self, word: str) -> list[Address]:
        """Return all connected workers that *word* means."""
        if self._revision != self._registry.revision:
            self._index()
        process_id = process_id_of(word)
        found = self._addresses.get(word, [])
        if not found and process_id is not None:
            found = self._addresses.get(f"{_BY_PID}{process_id}", [])
        return find_all(word, list(dict.fromkeys(found)))

    def _index(self) -> None:
        registry = self._registry
        self._addresses = {}
        self._revision = registry.revision
        for worker in registry.connections.values():
            address = Address(
                name=registry.name_of(worker),
                process_id=worker.process_id,
                connection_id=worker.connection_id,
                is_managed=registry.record_of(worker) is not None,
            )
            by_pid = f"{_BY_PID}{address.process_id}"
            for key in (address.name, worker.connection_id, by_pid):
                self._addresses.setdefault(key, []).append(address)
