"""Apply the controller's updates of its workers in sequence."""

from __future__ import annotations

import logging

from attrs import define, field

from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.wire.codec import to_fields
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.messages import Update, UpdateReport
from trio_supervisor.wire.workers import WorkerRecord
from trio_supervisor.wire.workers_digest import RecordsDigest

logger = logging.getLogger(__name__)


@define(eq=False)
class Updates:
    """Applies updates to a registry, each only after the previous one.

    After a gap the registry is outdated until the next snapshot, which the controller
    sends when it next compares the digests.
    """

    _registry: Registry
    _sequence: int | None = field(default=None, init=False)
    """Sequence number of the last applied update; None: only a snapshot is accepted."""
    _parts: list[WorkerRecord] | None = field(default=None, init=False)
    """Records of the snapshot that has arrived in part."""
    _digest: RecordsDigest = field(factory=RecordsDigest, init=False)

    def take(self, update: Update) -> Object:
        """Apply *update*; return the answer to it."""
        if update.is_snapshot:
            self._parts = []
        elif self._sequence is None or update.sequence != self._sequence + 1:
            logger.debug(
                "update %d follows %s; waiting for a snapshot",
                update.sequence,
                self._sequence,
            )
            self._sequence = self._parts = None
            self._registry.mark_outdated()
            return self._answer(update)
        self._sequence = update.sequence
        if self._parts is None:
            self._registry.update(update.workers, update.restarts, update.gone)
            return self._answer(update)
        self._parts += update.workers
        if not update.is_partial:
            self._registry.replace(self._parts, update.restarts)
            self._parts = None
        return self._answer(update)

    def _answer(self, update: Update) -> Object:
        if not update.digest:
            return {}
        known = self._registry.all_records
        is_applied = self._sequence is not None and self._parts is None
        is_same = is_applied and self._digest.of(known) == update.digest
        return to_fields(UpdateReport(is_same=is_same, workers=len(known)))
