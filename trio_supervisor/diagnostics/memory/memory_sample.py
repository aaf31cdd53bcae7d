"""Which objects were made in a period and are still there: who leaks, and who holds it.

Without tracing: nothing is slower meanwhile. What is there at the start is put aside,
and a snapshot of it notes what the collector does not track. At the end what is new is
collected, and a second snapshot looks at what is left of it: sizes, places, holders.
The process stands still for the two forks and the collection.

A sample goes: `MemorySampling.start`, then the period, then `stop`, and when the
snapshot that this returns is over, `report`; or `abort` at any time.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import time
from functools import partial
from typing import Final

from attrs import define, evolve, field, frozen

from trio_supervisor.diagnostics.memory.allocation_epochs import Epoch, begin_epoch
from trio_supervisor.diagnostics.memory.memory_lock import (
    MemoryLock,
    acquire_memory_lock,
)
from trio_supervisor.diagnostics.memory.memory_text import describe_sample
from trio_supervisor.diagnostics.memory.sample_snapshots import (
    Measured,
    count,
    note_baseline,
)
from trio_supervisor.diagnostics.memory_usage import read_memory
from trio_supervisor.diagnostics.snapshot.bare_fork import prepare
from trio_supervisor.diagnostics.snapshot.snapshot import Snapshot, fork_snapshot
from trio_supervisor.diagnostics.stacks.frames import running_threads
from trio_supervisor.errors import RemoteProtocolError, SnapshotError
from trio_supervisor.wire.codec import parse_result
from trio_supervisor.wire.memory_reports import Amount, MemoryReport, Pauses

_NAME: Final = "memory sample"


@frozen(kw_only=True)
class _Counters:
    """What two moments are compared by."""

    at: float
    blocks: int
    resident: int
    collections: tuple[int, ...]
    collected: int

    @classmethod
    def read(cls) -> _Counters:
        stats = gc.get_stats()
        memory = read_memory(os.getpid(), is_full=False)
        return cls(
            at=time.monotonic(),
            blocks=sys.getallocatedblocks(),
            resident=memory[0] if memory else 0,
            collections=tuple(one["collections"] for one in stats),
            collected=sum(one["collected"] for one in stats),
        )


@define(eq=False)
class MemorySampling:
    """A sample under way; made by `start`. Whoever has it ends or aborts it."""

    _lock: MemoryLock
    _fingerprints: int = field(factory=lambda: _open_unnamed())
    """A file without a name, for what the first snapshot notes."""
    _counters: _Counters = field(factory=_Counters.read)
    _epoch: Epoch | None = field(default=None, init=False)
    _baseline: Snapshot | None = field(default=None, init=False)
    _done: int | None = field(default=None, init=False)
    """A pipe by which the second snapshot hears that the first is through."""
    _counting: Snapshot | None = field(default=None, init=False)
    _is_over: bool = field(default=False, init=False)

    @classmethod
    def start(cls, time_box: float) -> MemorySampling:
        """Begin a sample: what is allocated from now on is new.

        Args:
            time_box: How long the snapshot of the start may take [s]; it works on
                while the period goes by.

        Raises:
            BusyError: somebody else looks into this process's memory.
            LowMemoryError, SnapshotError, PlatformError: as `fork_snapshot`.
        """
        prepare()  # what it makes is not new in the period
        lock = acquire_memory_lock(_NAME)
        try:
            sampling = cls(lock)
        except BaseException:
            lock.release()
            raise
        try:
            sampling._begin(time_box)
        except BaseException:
            sampling.abort()
            raise
        return sampling

    def stop(self, time_box: float) -> Snapshot:
        """End the period; return the snapshot that counts, to be waited for.

        The collector is as it was before the sample when this returns. On an error the
        sample is aborted.

        Args:
            time_box: How long the counting may take [s].

        Raises:
            LowMemoryError, SnapshotError, PlatformError: as `fork_snapshot`.
        """
        assert self._epoch is not None, "it was stopped already"
        assert self._done is not None, "it was started"
        try:
            measured = self._measure(self._epoch)
            keep = (self._fingerprints, self._done)
            work = partial(count, self._epoch, measured, running_threads(), *keep)
            self._counting = fork_snapshot(work, time_box, keep)
            del work  # it has the frames of threads
        except BaseException:
            self.abort()
            raise
        self._end_epoch()
        return self._counting

    def report(self) -> MemoryReport:
        """Return the report, once the snapshot of `stop` is over; end the sample.

        Raises:
            SnapshotError: it came to nothing.
        """
        assert self._counting is not None, "stop() comes first"
        try:
            report = parse_result(self._counting.result(), MemoryReport)
        except RemoteProtocolError as exc:
            raise SnapshotError(f"the snapshot made no sense: {exc}") from None
        finally:
            self.abort()
        pauses = evolve(report.pauses, end=self._counting.pause)
        report = evolve(report, pauses=pauses)
        return evolve(report, data=describe_sample(report))

    def finish(self, time_box: float) -> MemoryReport:
        """Do `stop`, block until its snapshot is over, and return the report.

        Raises:
            LowMemoryError, SnapshotError, PlatformError: as `stop` and `report`.
        """
        snapshot = self.stop(time_box)
        try:
            snapshot.wait()
        except BaseException:
            self.abort()
            raise
        return self.report()

    def abort(self) -> None:
        """End it as it stands, and leave nothing behind. Again: does nothing."""
        if self._is_over:
            return
        self._is_over = True
        for snapshot in (self._baseline, self._counting):
            if snapshot is not None:
                snapshot.close()
        os.close(self._fingerprints)
        if self._done is not None:
            os.close(self._done)
        self._end_epoch()
        self._lock.release()

    def _begin(self, time_box: float) -> None:
        self._done, theirs = os.pipe()
        try:
            self._epoch = begin_epoch()
            keep = (self._fingerprints, theirs)
            work = partial(note_baseline, self._epoch, running_threads(), *keep)
            self._baseline = fork_snapshot(work, time_box, keep)
            del work  # it has the frames of threads
        finally:
            os.close(theirs)

    def _measure(self, epoch: Epoch) -> Measured:
        """Collect what is garbage, and return what this process alone can tell."""
        assert self._baseline is not None
        before, now = self._counters, _Counters.read()
        epoch.collect()
        return Measured(
            duration=now.at - before.at,
            allocated=Amount(
                memory=now.resident - before.resident, count=now.blocks - before.blocks
            ),
            collections=tuple(
                b - a for a, b in zip(before.collections, now.collections, strict=True)
            ),
            collected=now.collected - before.collected,
            pauses=Pauses(
                start=self._baseline.pause,
                collection=time.monotonic() - now.at,
                end=0.0,
            ),
        )

    def _end_epoch(self) -> None:
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            epoch.end()


def _open_unnamed() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("trio_supervisor", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
