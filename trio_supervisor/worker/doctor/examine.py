"""Examine a worker from its own agent: collect facts for a while, then diagnose them.

In the first half of the duration, garbage collections are profiled; in the second, a
memory sample runs, which changes the collector's settings: the two cannot overlap. All
else is measured in both halves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol

import trio
from attrs import define, evolve, field

from trio_supervisor.diagnostics.diagnosis_text import describe
from trio_supervisor.diagnostics.locations import (
    CodeLocation,
    application_location,
    stack_lines,
)
from trio_supervisor.diagnostics.memory.memory_sample import MemorySampling
from trio_supervisor.diagnostics.profile.garbage import GarbageProfiler
from trio_supervisor.diagnostics.snapshot.memory_headroom import free_memory
from trio_supervisor.diagnostics.snapshot.snapshot import Snapshot
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop
from trio_supervisor.errors import SupervisorError
from trio_supervisor.policy.doctor.diagnose import diagnose
from trio_supervisor.policy.doctor.facts import (
    Facts,
    GarbageFacts,
    HolderFacts,
    MainThreadFacts,
    MemoryFacts,
)
from trio_supervisor.wire.codec import parse_result, to_fields
from trio_supervisor.wire.diagnosis import Diagnosis
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.memory_reports import MemoryReport
from trio_supervisor.wire.reports import StallReport
from trio_supervisor.worker.address_space import room_in_address_space
from trio_supervisor.worker.doctor.growth_series import Counts, count_descriptors
from trio_supervisor.worker.doctor.leak_holders import holders_of
from trio_supervisor.worker.doctor.lock_samples import LockSamples
from trio_supervisor.worker.doctor.main_thread import (
    SAMPLE_INTERVAL,
    MainThreadSampler,
    sampling_main_thread,
)
from trio_supervisor.worker.doctor.text import examined_areas

_COUNTING: Final = 45.0
"""Time limit of the memory sample's snapshot [s]: the client waits for it. A heap of a
million objects takes less than half of that, and so does a small one where the worker
computes on all CPUs of a busy machine; use `memory_sample` for larger heaps."""
_PROGRESS: Final = 0.5
"""Time between two progress reports [s]."""
_MEASURED: Final = 0.8
"""Progress at the end of the measurements; the rest is the snapshot's."""


class ExaminedWorker(Protocol):
    """The worker that is examined."""

    @property
    def main(self) -> MainLoop:
        """The main thread's event loop."""

    def held(self) -> AbstractContextManager[None]:
        """Mark a block that pauses the main thread: it counts as no silence."""

    def slow_tasks(self) -> Mapping[str, object]:
        """Return the fields of a `StallReport` since the worker's start."""

    def stop_checks(self) -> int:
        """Return how often a sync target has checked ``stopping``; else 0."""


class ProgressListener(Protocol):
    """The call that a client waits for."""

    def progress(self, fields: Mapping[str, object]) -> None:
        """Send a progress report."""


@define(eq=False)
class _Examination:
    _worker: ExaminedWorker
    _call: ProgressListener
    _duration: float
    _main_thread: MainThreadSampler
    _counts: Counts
    _locks: LockSamples = field(factory=LockSamples, init=False)
    _began: float = field(factory=trio.current_time, init=False)
    _progress: float = field(default=0.0, init=False)
    _next_progress: float = field(default=0.0, init=False)
    _garbage: GarbageProfiler | None = field(default=None, init=False)
    """It has stopped. None: another garbage profile was running."""
    _sample: MemoryReport | None = field(default=None, init=False)
    left_out: list[str] = field(factory=list, init=False)
    """What could not be examined, and why."""

    async def run(self) -> Facts:
        """Measure for the whole duration and return the facts."""
        self._locks.take()
        with self._profiling_garbage():
            await self._measure_until(0.5)
        self._locks.take()
        sampling = self._start_sampling()
        try:
            await self._measure_until(1.0)
            self._locks.take()
            # Before the snapshot is forked: its pause must not look like a stall.
            main = self._main()
            await self._finish_sampling(sampling)
        finally:
            if sampling is not None:
                sampling.abort()
        return Facts(
            duration=self._duration,
            main=main,
            deadlocks=self._locks.deadlocks(self._main_thread.main.thread),
            memory=self._memory(),
            garbage=_garbage(self._garbage) if self._garbage is not None else None,
            descriptors=self._counts.descriptors(),
            tasks=self._counts.tasks(),
            threads=self._counts.threads(),
        )

    @property
    def pause(self) -> float:
        """How long the process was paused for the memory sample [s]."""
        if self._sample is None:
            return 0.0
        pauses = self._sample.pauses
        return pauses.start + pauses.collection + pauses.end

    async def _measure_until(self, part: float) -> None:
        """Measure until that share of the duration has passed."""
        end = self._began + part * self._duration
        while (left := end - trio.current_time()) > 0:
            self._main_thread.sample()
            self._counts.add()
            now = trio.current_time()
            if now >= self._next_progress:
                self._next_progress = now + _PROGRESS
                passed = min(1.0, (now - self._began) / self._duration)
                self._report_progress(_MEASURED * passed)
            await trio.sleep(min(left, SAMPLE_INTERVAL))

    def _report_progress(self, progress: float) -> None:
        self._progress = max(self._progress, round(progress, 3))
        self._call.progress({"progress": self._progress})

    @contextmanager
    def _profiling_garbage(self) -> Iterator[None]:
        profile = GarbageProfiler()
        try:
            profile.start()
        except SupervisorError as exc:
            self.left_out.append(f"garbage collection: {exc}")
            yield
            return
        try:
            yield
        finally:
            profile.stop()
            # To describe it now would read source files: memory that looks retained.
            self._garbage = profile

    def _start_sampling(self) -> MemorySampling | None:
        before = count_descriptors()
        try:
            with self._worker.held():
                sampling = MemorySampling.start(self._duration + _COUNTING)
        except SupervisorError as exc:
            self.left_out.append(f"retained memory: {exc}")
            return None
        self._counts.borrowed = max(0, count_descriptors() - before)
        return sampling

    async def _finish_sampling(self, sampling: MemorySampling | None) -> None:
        if sampling is None:
            return
        try:
            with self._worker.held():
                snapshot = sampling.stop(_COUNTING)
            await self._wait_for(snapshot)
            self._sample = sampling.report()
        except SupervisorError as exc:
            self.left_out.append(f"retained memory: {exc}")

    async def _wait_for(self, snapshot: Snapshot) -> None:
        """Wait until the snapshot is complete, or its deadline has passed."""
        with trio.move_on_after(max(0.0, snapshot.deadline - time.monotonic())):
            while not snapshot.is_over:
                await trio.lowlevel.wait_readable(snapshot.descriptor)
                progress = snapshot.receive()
                self._report_progress(_MEASURED + (1 - _MEASURED) * progress)

    def _main(self) -> MainThreadFacts:
        main = self._main_thread.facts(
            self._locks.wait_of(self._main_thread.main.thread)
        )
        if not main.silent:
            return main
        # The loop may have been blocked since long before the examination.
        before = parse_result(self._worker.slow_tasks(), StallReport).stalls
        silent = max([main.silent, *(s.duration for s in before if not s.is_over)])
        return evolve(main, silent=silent, longest=max(main.longest, silent))

    def _memory(self) -> MemoryFacts:
        holders = tuple[HolderFacts, ...]()
        if self._sample is not None:
            holders = holders_of(self._sample)
        return MemoryFacts(
            resident=self._counts.resident.values,
            blocks=self._counts.blocks.values,
            free=min([free_memory(), *room_in_address_space()]),
            sampled=self._sample.duration if self._sample is not None else 0.0,
            holders=holders,
        )


async def examine(
    worker: ExaminedWorker, call: ProgressListener, duration: float
) -> Object:
    """Examine this process for *duration* seconds; return the fields of a `Diagnosis`.

    Call it in the agent's loop. What cannot be examined, for example because another
    memory sample is running, is listed in ``left_out``. A cancellation leaves nothing
    behind.
    """
    main = worker.main
    began, used = time.monotonic(), time.thread_time()
    with sampling_main_thread(main, worker.stop_checks) as main_thread:
        examination = _Examination(worker, call, duration, main_thread, Counts(main))
        facts = await examination.run()
    passed = max(1e-9, time.monotonic() - began)
    overhead = min(1.0, (time.thread_time() - used) / passed)
    diagnosis = Diagnosis(
        data="",
        duration=duration,
        findings=diagnose(facts),
        looked_at=examined_areas(facts),
        left_out=tuple(examination.left_out),
        overhead=overhead,
        pause=examination.pause,
        facts=to_fields(facts),
    )
    return {**to_fields(diagnosis), "data": describe(diagnosis)}


def _garbage(profile: GarbageProfiler) -> GarbageFacts:
    report = profile.stop()
    times = dict[CodeLocation, float]()
    longest = dict[CodeLocation, list[CodeLocation]]()
    for stack in profile.stacks():  # the longest first
        locations = [
            CodeLocation(one.file, one.line, one.function) for one in stack.lines
        ]
        if (location := application_location(locations)) is not None:
            times[location] = times.get(location, 0.0) + stack.pause
            longest.setdefault(location, locations)
    place = max(times, key=lambda location: times[location], default=None)
    worst = max(report.generations, key=lambda one: one.pause)
    return GarbageFacts(
        share=report.pause / report.duration if report.duration else 0.0,
        collections=report.collections,
        longest=report.longest,
        generation=worst.generation,
        place=str(place or ""),
        share_of_place=times[place] / report.pause if place else 0.0,
        stack=stack_lines(longest[place]) if place else (),
    )
