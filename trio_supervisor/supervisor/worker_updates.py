"""What the controller says of its workers, taken in in sequence."""

from __future__ import annotations

import logging

from attrs import define, field

from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.wire.codec import to_fields
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.messages import Update, UpdateReport, WorkerRecord
from trio_supervisor.wire.workers_digest import PictureDigest

logger = logging.getLogger(__name__)


@define(eq=False)
class Updates:
    """Applies updates to a registry, each only after the one before it.

    After a gap the registry counts as not informed until the next snapshot, which the
    controller sends when it compares the two pictures.
    """

    _registry: Registry
    _sequence: int | None = field(default=None, init=False)
    """Of the last update that was applied; None: a snapshot has to come first."""
    _parts: list[WorkerRecord] | None = field(default=None, init=False)
    """What has come of a snapshot so far."""
    _digest: PictureDigest = field(factory=PictureDigest, init=False)

    def take(self, update: Update) -> Object:
        """Apply *update*; return the answer to it."""
        if update.is_snapshot:
            self._parts = []
        elif self._sequence is None or update.sequence != self._sequence + 1:
            logger.debug("update %d after %s", update.sequence, self._sequence)
            self._sequence = self._parts = None
            self._registry.doubt()
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
