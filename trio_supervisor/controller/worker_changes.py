"""Track the changes of workers that the supervisor has not received yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define, field

from trio_supervisor.controller.child.child import Child
from trio_supervisor.wire.workers import Gone, WorkerRecord
from trio_supervisor.wire.workers_digest import Key, RecordsDigest


@define(eq=False)
class Changes:
    """Changes to send to the supervisor."""

    records: list[WorkerRecord] = field(factory=list)
    gone: list[Gone] = field(factory=list)


@define(eq=False)
class Roster:
    """Workers by name and generation, and which of them have changed.

    A worker that is being stopped and its replacement may share a name and generation,
    such as when a service is scaled down and up again. The former, which has the
    process, is reported until it has exited.
    """

    _record_of: Callable[[Child], WorkerRecord]
    told: dict[Key, WorkerRecord] = field(factory=dict, init=False)
    """Records sent to the supervisor, by name and generation."""
    _workers: dict[Key, list[Child]] = field(factory=dict, init=False)
    _keys: dict[Child, Key] = field(factory=dict, init=False)
    _dirty: dict[Key, None] = field(factory=dict, init=False)
    _digest: RecordsDigest = field(factory=RecordsDigest, init=False)

    def __bool__(self) -> bool:
        return bool(self._dirty)

    def note(self, worker: Child) -> None:
        """Mark *worker* as new or changed."""
        key = worker.name, worker.plan.generation
        if worker not in self._keys:
            self._keys[worker] = key
            self._workers.setdefault(key, []).append(worker)
        self._dirty[key] = None

    def drop(self, worker: Child) -> None:
        """Mark *worker* as removed."""
        if (key := self._keys.pop(worker, None)) is None:
            return
        namesakes = self._workers[key]
        namesakes.remove(worker)
        if not namesakes:
            del self._workers[key]
        self._dirty[key] = None

    def take(self) -> Changes:
        """Return the pending changes, and mark them as sent."""
        changes = Changes()
        dirty, self._dirty = self._dirty, {}
        for key in dirty:
            if key in self._workers:
                record = self._current(key)
                self.told[key] = record
                changes.records.append(record)
            elif self.told.pop(key, None) is not None:
                changes.gone.append(Gone(name=key[0], generation=key[1]))
        return changes

    def restart(self, workers: Iterable[Child]) -> Changes:
        """Return all *workers* as changes, for a newly connected supervisor."""
        self.told, self._workers, self._keys, self._dirty = {}, {}, {}, {}
        for worker in workers:
            self.note(worker)
        return self.take()

    def audit(self, workers: Iterable[Child]) -> Changes:
        """Return changes missed among *workers* (all workers); mark them as sent."""
        present = dict.fromkeys(workers)
        for worker in [known for known in self._keys if known not in present]:
            self.drop(worker)
        for worker in present:
            if worker not in self._keys:
                self.note(worker)
        for key in self._workers:
            if self.told.get(key) != self._current(key):
                self._dirty[key] = None
        return self.take()

    def _current(self, key: Key) -> WorkerRecord:
        records = [self._record_of(worker) for worker in self._workers[key]]
        return max(records, key=lambda each: (each.process_id is not None, each.counts))

    def digest(self) -> str:
        """Return the digest of what was told."""
        return self._digest.of(self.told)
