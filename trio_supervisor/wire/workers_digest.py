"""Compute a digest of the records of all workers, to compare two copies of them."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from attrs import define, field

from trio_supervisor.wire.workers import WorkerRecord

Key = tuple[str, int]
"""Name and generation: `WorkerRecord.key`."""


@define(eq=False)
class RecordsDigest:
    """Computes digests repeatedly; records that have not changed cost little.

    The digest is independent of the order of the records.
    """

    _sums: dict[Key, tuple[WorkerRecord, int]] = field(factory=dict, init=False)

    def of(self, records: Mapping[Key, WorkerRecord]) -> str:
        """Return the digest of *records*."""
        sums = {}
        for key, record in records.items():
            known = self._sums.get(key)
            is_known = known is not None and known[0] is record
            sums[key] = known if known and is_known else (record, _sum_of(record))
        self._sums = sums
        total = sum(number for _, number in sums.values()) % 2**64
        return f"{len(sums)}-{total:016x}"


def _sum_of(record: WorkerRecord) -> int:
    text = repr(record).encode("utf-8", "backslashreplace")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
