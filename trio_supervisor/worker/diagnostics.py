"""Answer diagnostic calls about this worker, in the thread of its agent.

The answers do not depend on the main thread. Work that takes long runs in a forked
snapshot or waits; modules that only diagnostics need are imported when first used.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import trio
from attrs import define, field

from trio_supervisor.diagnostics.tasks.loop_stalls import StallWatch
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop, find_main_loop
from trio_supervisor.errors import BadRequestError, UnavailableError
from trio_supervisor.link.answers import answers
from trio_supervisor.link.peer import Answer, Fields, IncomingCall
from trio_supervisor.wire.codec import to_fields
from trio_supervisor.wire.worker_messages import (
    AllocationTraceStart,
    AllocationTraceStop,
    DescriptorDump,
    Doctor,
    GarbageProfile,
    GarbageProfileStart,
    GarbageProfileStop,
    LoadedCode,
    LockDump,
    MemoryDump,
    MemorySample,
    Profile,
    SchedulerDump,
    SlowTasks,
    ThreadDump,
)
from trio_supervisor.worker.delivery import as_ruby_report

# Four samples a second: a stall of half a second is always noticed.
SAMPLE_INTERVAL: Final = 0.25
STALL: Final = 0.25
# A snapshot that takes longer is aborted [s].
_SNAPSHOT_WITHIN: Final = 120.0
_PROGRESS_INTERVAL: Final = 0.5


@define(eq=False)
class WorkerDiagnostics:
    """Answers the diagnostic operations of one worker."""

    _name: str
    held: Callable[[], AbstractContextManager[None]] = nullcontext
    """Around what stops the main thread: a missed heartbeat is then not its fault."""
    stop_checks: Callable[[], int] = lambda: 0
    """Returns how often a sync target has checked ``stopping``."""
    _started_at: float = field(factory=time.time, init=False)
    """[s since the epoch]"""
    _main: MainLoop | None = field(default=None, init=False)
    """The event loop that our own runtime started."""
    _stalls: StallWatch | None = field(default=None, init=False)
    _garbage: Any = field(default=None, init=False)
    """The garbage profile between start and stop."""
    _trace: Any = field(default=None, init=False)
    """The allocation trace between start and stop."""

    def begin(self, main: MainLoop) -> None:
        """Use *main* as the main thread's event loop; called within it."""
        self._main = main
        self._stalls = StallWatch(main, STALL, SAMPLE_INTERVAL)

    async def watch(self) -> None:
        """Watch for stalls of the main loop until cancelled."""
        while True:
            await trio.sleep(SAMPLE_INTERVAL)
            self.look()

    def look(self) -> float:
        """Watch for stalls of the main loop; return when to do so again [s]."""
        if self._stalls is not None:
            self._stalls.look()
        return SAMPLE_INTERVAL

    @property
    def main(self) -> MainLoop:
        """The main thread's event loop, or one that a plain function started itself."""
        return self._main if self._main is not None else find_main_loop()

    @answers(ThreadDump)
    def dump_threads(self, operation: ThreadDump, call: IncomingCall) -> Fields:
        from trio_supervisor.diagnostics.stacks.thread_stacks import thread_report

        return to_fields(thread_report(with_locals=operation.locals))

    @answers(SchedulerDump)
    def dump_scheduler(self, operation: SchedulerDump, call: IncomingCall) -> Fields:
        from trio_supervisor.diagnostics.tasks.report import scheduler_report

        return to_fields(scheduler_report(self.main))

    @answers(LockDump)
    def dump_locks(self, operation: LockDump, call: IncomingCall) -> Fields:
        from trio_supervisor.diagnostics.locks.locks import lock_report

        return to_fields(lock_report())

    @answers(DescriptorDump)
    def dump_descriptors(self, operation: DescriptorDump, call: IncomingCall) -> Fields:
        from trio_supervisor.diagnostics.descriptors.descriptor_counts import (
            count_by_kind,
        )

        return to_fields(count_by_kind().report())

    @answers(SlowTasks)
    def report_slow_tasks(self, operation: SlowTasks, call: IncomingCall) -> Fields:
        return self.slow_tasks()

    def slow_tasks(self) -> Fields:
        """Return the fields of a `StallReport`."""
        stalls = self._stalls or StallWatch(MainLoop(), STALL, SAMPLE_INTERVAL)
        return to_fields(stalls.report())

    @answers(LoadedCode)
    def loaded_code(self, operation: LoadedCode, call: IncomingCall) -> Fields:
        from trio_supervisor.process.code.loaded import loaded_files
        from trio_supervisor.wire.reports import LoadedFile, LoadedReport

        files = [
            LoadedFile(path=path, after=after)
            for path, after in sorted(loaded_files(self._started_at))
        ]
        text = "".join(f"{file.path}\n" for file in files)
        return to_fields(LoadedReport(data=text, files=tuple(files)))

    @answers(MemorySample)
    def sample_memory(self, operation: MemorySample, call: IncomingCall) -> Answer:
        """Sample allocations; a cancellation leaves nothing of it behind."""
        if operation.engine == "memray":
            return self._sample_with_memray(operation, call)
        return self._sample_with_snapshots(operation, call)

    async def _sample_with_snapshots(
        self, operation: MemorySample, call: IncomingCall
    ) -> Fields:
        from trio_supervisor.diagnostics.memory.memory_sample import MemorySampling

        with self.held():
            sampling = MemorySampling.start(operation.duration + _SNAPSHOT_WITHIN)
        try:
            await _wait(call, operation.duration)
            with self.held():
                snapshot = sampling.stop(_SNAPSHOT_WITHIN)
            await _finish(snapshot)
            return _in_format(call, to_fields(sampling.report()))
        finally:
            sampling.abort()

    async def _sample_with_memray(
        self, operation: MemorySample, call: IncomingCall
    ) -> Fields:
        from trio_supervisor.worker.allocations import AllocationTrace

        trace = AllocationTrace.start()
        try:
            await _wait(call, operation.duration)
            report = await trio.to_thread.run_sync(trace.stop)
            return _in_format(call, to_fields(report))
        finally:
            trace.abort()

    @answers(MemoryDump)
    async def dump_memory(self, operation: MemoryDump, call: IncomingCall) -> Fields:
        """Dump the heap; a cancellation leaves no file behind."""
        from trio_supervisor.diagnostics.heap.heap_dump import HeapDump

        path = operation.path or self._heap_path()
        with self.held():
            dump = HeapDump.start(path, _SNAPSHOT_WITHIN, with_repr=operation.values)
        try:
            await _finish(dump.snapshot, call)
            return to_fields(dump.finish())
        finally:
            dump.abort()

    def _heap_path(self) -> str:
        stamp = time.strftime("%Y%m%dT%H%M%S")
        file = f"heap-{self._name}-{os.getpid()}-{stamp}.jsonl"
        return os.path.join(tempfile.gettempdir(), file)

    @answers(AllocationTraceStart)
    def start_trace(
        self, operation: AllocationTraceStart, call: IncomingCall
    ) -> Fields:
        from trio_supervisor.worker.allocations import AllocationTrace

        self._trace = AllocationTrace.start()
        return {}

    @answers(AllocationTraceStop)
    async def stop_trace(
        self, operation: AllocationTraceStop, call: IncomingCall
    ) -> Fields:
        if self._trace is None:
            raise UnavailableError("no allocation trace was started")
        trace, self._trace = self._trace, None
        try:
            return to_fields(await trio.to_thread.run_sync(trace.stop))
        finally:
            trace.abort()

    @answers(GarbageProfileStart)
    def start_garbage_profile(
        self, operation: GarbageProfileStart, call: IncomingCall
    ) -> Fields:
        self._garbage = _start_garbage_profile()
        return {}

    @answers(GarbageProfileStop)
    def stop_garbage_profile(
        self, operation: GarbageProfileStop, call: IncomingCall
    ) -> Fields:
        if self._garbage is None:
            raise UnavailableError("no garbage profile was started")
        profile, self._garbage = self._garbage, None
        return to_fields(profile.stop())

    @answers(GarbageProfile)
    async def profile_garbage(
        self, operation: GarbageProfile, call: IncomingCall
    ) -> Fields:
        profile = _start_garbage_profile()
        try:
            await _wait(call, operation.duration)
        finally:
            report = profile.stop()
        return to_fields(report)

    @answers(Profile)
    async def profile(self, operation: Profile, call: IncomingCall) -> Fields:
        from trio_supervisor.diagnostics.profile.formats import FORMATS, profile_report
        from trio_supervisor.diagnostics.profile.sampling import Sampler

        if operation.format not in FORMATS:
            known = ", ".join(FORMATS)
            raise BadRequestError(
                f"format: expected one of {known}, got {operation.format!r:.80}"
            )
        sampler = Sampler(self.main, operation.interval)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_sample, sampler, operation.interval)
            await _wait(call, operation.duration)
            nursery.cancel_scope.cancel()
        return to_fields(profile_report(sampler.profile(), operation.format))

    @answers(Doctor)
    async def doctor(self, operation: Doctor, call: IncomingCall) -> Fields:
        from trio_supervisor.worker.doctor.examine import examine

        return await examine(self, call, operation.duration)


def _start_garbage_profile() -> Any:
    from trio_supervisor.diagnostics.profile.garbage import GarbageProfiler

    profile = GarbageProfiler()
    profile.start()
    return profile


def _in_format(call: IncomingCall, fields: Fields) -> Fields:
    """Return the report of a sample with ``data`` as JSON, or as text if requested."""
    if call.arguments.get("format") == "text":
        return fields
    return {**fields, "data": as_ruby_report(fields)}


async def _wait(call: IncomingCall, seconds: float) -> None:
    """Wait, and send the progress in intermediate answers."""
    began = trio.current_time()
    while (left := began + seconds - trio.current_time()) > 0:
        await trio.sleep(min(left, _PROGRESS_INTERVAL))
        passed = trio.current_time() - began
        call.progress({"progress": round(min(passed / seconds, 1.0), 3)})


async def _finish(snapshot: Any, call: IncomingCall | None = None) -> None:
    """Wait until a forked snapshot has sent everything, or its time is over."""
    with trio.move_on_after(max(0.0, snapshot.deadline - time.monotonic())):
        while not snapshot.is_over:
            await trio.lowlevel.wait_readable(snapshot.descriptor)
            progress = snapshot.receive()
            if call is not None and not snapshot.is_over:
                call.progress({"progress": round(progress, 3)})
        if snapshot.pidfd is not None:  # so that reaping it does not block
            await trio.lowlevel.wait_readable(snapshot.pidfd)


async def _sample(sampler: Any, interval: float) -> None:
    due = trio.current_time()
    while True:
        sampler.sample()
        due = max(due + interval, trio.current_time())
        await trio.sleep_until(due)
