"""A worker looks into itself: what its agent answers when it is asked how it is.

All of it runs in the agent's thread, whatever the main thread is doing. What takes long
is in a forked snapshot, or waits; what is loaded for it is loaded when it is needed.
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
from trio_supervisor.link.peer import Fields, IncomingCall
from trio_supervisor.wire.codec import to_fields
from trio_supervisor.wire.messages import (
    Doctor,
    GarbageProfile,
    MemoryDump,
    MemorySample,
    Profile,
    ThreadDump,
)
from trio_supervisor.worker.delivery import as_ruby_report

# Four looks a second: a stall of half a second is seen for sure.
LOOK_INTERVAL: Final = 0.25
STALL: Final = 0.25
# A snapshot that takes longer than this is given up [s].
_SNAPSHOT: Final = 120.0
_PROGRESS: Final = 0.5


@define(eq=False)
class Looking:
    """What the agent of one worker can tell."""

    _name: str
    held: Callable[[], AbstractContextManager[None]] = nullcontext
    """Around what holds the main thread up: that is no silence of its own."""
    stop_checks: Callable[[], int] = lambda: 0
    """Returns how often a sync target has checked ``stopping``."""
    _started_at: float = field(factory=time.time, init=False)
    """[s since the epoch]"""
    _main: MainLoop | None = field(default=None, init=False)
    """The loop that our own runtime has started."""
    _watch: StallWatch | None = field(default=None, init=False)
    _garbage: Any = field(default=None, init=False)
    """The profile between a start and a stop."""
    _trace: Any = field(default=None, init=False)
    """The allocation trace between a start and a stop."""

    def begin(self, main: MainLoop) -> None:
        """Take in the main thread's loop; called within it."""
        self._main = main
        self._watch = StallWatch(main, STALL, LOOK_INTERVAL)

    async def watch(self) -> None:
        """Look for stalls of the main loop until cancelled."""
        while True:
            await trio.sleep(LOOK_INTERVAL)
            if self._watch is not None:
                self._watch.look()

    @property
    def main(self) -> MainLoop:
        """The main thread's loop; of a plain function, one that it started itself."""
        return self._main if self._main is not None else find_main_loop()

    def threads(self, operation: ThreadDump) -> Fields:
        """Answer ``thread_dump``."""
        from trio_supervisor.diagnostics.stacks.thread_stacks import thread_report

        return to_fields(thread_report(with_locals=operation.locals))

    def scheduler(self) -> Fields:
        """Answer ``scheduler_dump``."""
        from trio_supervisor.diagnostics.tasks.report import scheduler_report

        return to_fields(scheduler_report(self.main))

    def locks(self) -> Fields:
        """Answer ``lock_report``."""
        from trio_supervisor.diagnostics.locks.locks import lock_report

        return to_fields(lock_report())

    def descriptors(self) -> Fields:
        """Answer ``descriptors``."""
        from trio_supervisor.diagnostics.descriptors.descriptor_counts import (
            count_by_kind,
        )

        return to_fields(count_by_kind().report())

    def slow_tasks(self) -> Fields:
        """Answer ``slow_tasks``."""
        watch = self._watch or StallWatch(MainLoop(), STALL, LOOK_INTERVAL)
        return to_fields(watch.report())

    def loaded_code(self) -> Fields:
        """Answer ``loaded_code``."""
        from trio_supervisor.process.code.loaded import loaded_files
        from trio_supervisor.wire.reports import LoadedFile, LoadedReport

        files = [
            LoadedFile(path=path, after=after)
            for path, after in sorted(loaded_files(self._started_at))
        ]
        text = "".join(f"{file.path}\n" for file in files)
        return to_fields(LoadedReport(data=text, files=tuple(files)))

    async def memory_sample(
        self, call: IncomingCall, operation: MemorySample
    ) -> Fields:
        """Answer ``memory_sample``. A cancellation leaves nothing of it behind."""
        from trio_supervisor.diagnostics.memory.memory_sample import MemorySampling

        with self.held():
            sampling = MemorySampling.start(operation.duration + _SNAPSHOT)
        try:
            await _wait(call, operation.duration)
            with self.held():
                snapshot = sampling.stop(_SNAPSHOT)
            await _finish(snapshot)
            return _in_format(call, to_fields(sampling.report()))
        finally:
            sampling.abort()

    async def memory_dump(self, call: IncomingCall, operation: MemoryDump) -> Fields:
        """Answer ``memory_dump``. A cancellation leaves no file behind."""
        from trio_supervisor.diagnostics.heap.heap_dump import HeapDump

        path = operation.path or self._heap_path()
        with self.held():
            dump = HeapDump.start(path, _SNAPSHOT, with_repr=operation.values)
        try:
            await _finish(dump.snapshot, call)
            return to_fields(dump.finish())
        finally:
            dump.abort()

    def _heap_path(self) -> str:
        stamp = time.strftime("%Y%m%dT%H%M%S")
        file = f"heap-{self._name}-{os.getpid()}-{stamp}.jsonl"
        return os.path.join(tempfile.gettempdir(), file)

    async def allocations(self, call: IncomingCall, operation: MemorySample) -> Fields:
        """Answer ``memory_sample`` with memray's means."""
        from trio_supervisor.worker.allocations import AllocationTrace

        trace = AllocationTrace.start()
        try:
            await _wait(call, operation.duration)
            report = await trio.to_thread.run_sync(trace.stop)
            return _in_format(call, to_fields(report))
        finally:
            trace.abort()

    def trace_start(self) -> Fields:
        """Answer ``allocation_trace_start``."""
        from trio_supervisor.worker.allocations import AllocationTrace

        self._trace = AllocationTrace.start()
        return {}

    async def trace_stop(self) -> Fields:
        """Answer ``allocation_trace_stop``."""
        if self._trace is None:
            raise UnavailableError("no allocation trace was started")
        trace, self._trace = self._trace, None
        try:
            return to_fields(await trio.to_thread.run_sync(trace.stop))
        finally:
            trace.abort()

    def garbage_start(self) -> Fields:
        """Answer ``garbage_profile_start``."""
        from trio_supervisor.diagnostics.profile.garbage import GarbageProfiler

        profile = GarbageProfiler()
        profile.start()
        self._garbage = profile
        return {}

    def garbage_stop(self) -> Fields:
        """Answer ``garbage_profile_stop``."""
        if self._garbage is None:
            raise UnavailableError("no garbage profile was started")
        profile, self._garbage = self._garbage, None
        return to_fields(profile.stop())

    async def garbage_profile(
        self, call: IncomingCall, operation: GarbageProfile
    ) -> Fields:
        """Answer ``garbage_profile``."""
        from trio_supervisor.diagnostics.profile.garbage import GarbageProfiler

        profile = GarbageProfiler()
        profile.start()
        try:
            await _wait(call, operation.duration)
        finally:
            report = profile.stop()
        return to_fields(report)

    async def profile(self, call: IncomingCall, operation: Profile) -> Fields:
        """Answer ``profile``."""
        from trio_supervisor.diagnostics.profile.formats import FORMATS, profile_report
        from trio_supervisor.diagnostics.profile.sampling import Sampler

        if operation.format not in FORMATS:
            known = ", ".join(FORMATS)
            raise BadRequestError(
                f"format: {operation.format!r:.80} is none of {known}"
            )
        sampler = Sampler(self.main, operation.interval)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_sample, sampler, operation.interval)
            await _wait(call, operation.duration)
            nursery.cancel_scope.cancel()
        return to_fields(profile_report(sampler.profile(), operation.format))

    async def doctor(self, call: IncomingCall, operation: Doctor) -> Fields:
        """Answer ``doctor``: the facts, of which others make a diagnosis."""
        from trio_supervisor.worker.doctor.examine import examine

        return await examine(self, call, operation.duration)


def _in_format(call: IncomingCall, fields: Fields) -> Fields:
    """Return the report of a sample with ``data`` as JSON, or as text if asked for."""
    if call.arguments.get("format") == "text":
        return fields
    return {**fields, "data": as_ruby_report(fields)}


async def _wait(call: IncomingCall, seconds: float) -> None:
    """Wait, and say how far it is."""
    began = trio.current_time()
    while (left := began + seconds - trio.current_time()) > 0:
        await trio.sleep(min(left, _PROGRESS))
        passed = trio.current_time() - began
        call.progress({"progress": round(min(passed / seconds, 1.0), 3)})


async def _finish(snapshot: Any, call: IncomingCall | None = None) -> None:
    """Wait until a forked snapshot has said all, or its time is over."""
    with trio.move_on_after(max(0.0, snapshot.deadline - time.monotonic())):
        while not snapshot.is_over:
            await trio.lowlevel.wait_readable(snapshot.descriptor)
            progress = snapshot.receive()
            if call is not None and not snapshot.is_over:
                call.progress({"progress": round(progress, 3)})
        if snapshot.pidfd is not None:  # so that nobody blocks on its end
            await trio.lowlevel.wait_readable(snapshot.pidfd)


async def _sample(sampler: Any, interval: float) -> None:
    due = trio.current_time()
    while True:
        sampler.sample()
        due = max(due + interval, trio.current_time())
        await trio.sleep_until(due)
