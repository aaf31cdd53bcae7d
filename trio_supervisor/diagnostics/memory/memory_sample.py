"""Find objects that were allocated during a period and are retained, and their holders.

Nothing is traced, so the process is not slowed down. At the start, existing objects are
set aside, and a snapshot records those that the collector does not track. At the end,
new garbage is collected, and a second snapshot measures the new objects that remain:
sizes, locations, holders. The process is paused for two forks and a collection.

A sample: `MemorySampling.start`, then the period, then `stop`, and `report` once the
snapshot that `stop` returned is over; or `abort` at any time.
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
from trio_supervisor.diagnostics.memory.running_frames import FrameMarks
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
    """Counters at one moment, to be compared with those at another."""

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
    """A sample in progress, made by `start`; the caller must `stop` or `abort` it."""

    _lock: MemoryLock
    _fingerprints: int = field(factory=lambda: _open_unnamed())
    """An unnamed file for what the first snapshot records."""
    _counters: _Counters = field(factory=_Counters.read)
    _epoch: Epoch | None = field(default=None, init=False)
    _marks: FrameMarks | None = field(default=None, init=False)
    _baseline: Snapshot | None = field(default=None, init=False)
    _done: int | None = field(default=None, init=False)
    """A pipe that tells the second snapshot that the first is complete."""
    _counting: Snapshot | None = field(default=None, init=False)
    _is_over: bool = field(default=False, init=False)

    @classmethod
    def start(cls, time_box: float) -> MemorySampling:
        """Begin a sample: what is allocated from now on is new.

        Args:
            time_box: Time limit of the first snapshot [s]; it runs during the period.

        Raises:
            BusyError: another memory sample or dump of this process is running.
            LowMemoryError, SnapshotError, PlatformError: as `fork_snapshot`.
        """
        prepare()  # before the period: the objects it makes are not new
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
        """End the period; return the second snapshot, which the caller must wait for.

        The collector's settings are restored when this returns. On an error the sample
        is aborted.

        Args:
            time_box: Time limit of the second snapshot [s].

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
            del work  # it refers to the frames of threads
        except BaseException:
            self.abort()
            raise
        self._end_epoch()
        return self._counting

    def report(self) -> MemoryReport:
        """Return the report once the snapshot of `stop` is over; end the sample.

        Raises:
            SnapshotError: the snapshot failed.
        """
        assert self._counting is not None, "stop() comes first"
        try:
            report = parse_result(self._counting.result(), MemoryReport)
        except RemoteProtocolError as exc:
            raise SnapshotError(f"the snapshot's report is invalid: {exc}") from None
        finally:
            self.abort()
        pauses = evolve(report.pauses, end=self._counting.pause)
        report = evolve(report, pauses=pauses)
        return evolve(report, data=describe_sample(report))

    def finish(self, time_box: float) -> MemoryReport:
        """Call `stop`, block until its snapshot is over, and return the report.

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
        """Abort the sample and release everything. Calling it twice is harmless."""
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
            threads = running_threads()
            self._marks = FrameMarks.place(threads)
            work = partial(note_baseline, self._epoch, threads, *keep)
            self._baseline = fork_snapshot(work, time_box, keep)
            del work, threads  # they refer to the frames of threads
        finally:
            os.close(theirs)

    def _measure(self, epoch: Epoch) -> Measured:
        """Collect garbage; return what only this process can measure."""
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
        marks, self._marks = self._marks, None
        if epoch is not None:
            epoch.end()
        if marks is not None:
            marks.remove()


def _open_unnamed() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("trio_supervisor", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
