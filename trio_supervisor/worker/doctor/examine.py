"""The examination of a worker by its own agent: facts for a while, then what they mean.

It goes in two halves. In the first, the collections of garbage are watched; in the
second, the collector is steered for a memory sample, so that there is no other way. All
the rest is looked at in both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
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
from trio_supervisor.diagnostics.profile.garbage import GarbageProfiler, GarbageStack
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
from trio_supervisor.wire.diagnosis import Diagnosis, Finding
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.memory_reports import MemoryReport
from trio_supervisor.wire.reports import GarbageReport, StallReport
from trio_supervisor.worker.address_space import room_in_address_space
from trio_supervisor.worker.doctor.growth_series import Counts, count_descriptors
from trio_supervisor.worker.doctor.leak_holders import holders_of
from trio_supervisor.worker.doctor.lock_samples import LockSamples
from trio_supervisor.worker.doctor.main_thread import (
    SAMPLE_INTERVAL,
    MainThreadSampler,
    sampling_main_thread,
)
from trio_supervisor.worker.doctor.text import looked_at

_COUNTING: Final = 45.0
"""For the snapshot of the memory sample [s]: whoever asked waits for it. A heap of a
million objects takes less than half of that, and so does a small one where the worker
computes on all processors of a busy machine; of more, `memory_sample` tells."""
_PROGRESS: Final = 0.5
_WATCHED: Final = 0.8
"""The part of the progress after which the snapshot counts."""


class ExaminedWorker(Protocol):
    """What is examined."""

    @property
    def main(self) -> MainLoop:
        """The main thread's loop."""

    def held(self) -> AbstractContextManager[None]:
        """Stand around what holds its main thread up."""

    def slow_tasks(self) -> Mapping[str, object]:
        """Return the fields of a `StallReport` since the worker's start."""

    def stop_checks(self) -> int:
        """Return how often a sync target has checked ``stopping``; else 0."""


class Caller(Protocol):
    """Who asked."""

    def progress(self, fields: Mapping[str, object]) -> None:
        """Hear how far it is."""


@define(eq=False)
class _Examination:
    _worker: ExaminedWorker
    _call: Caller
    _duration: float
    _main_thread: MainThreadSampler
    _counts: Counts
    _locks: LockSamples = field(factory=LockSamples, init=False)
    _began: float = field(factory=trio.current_time, init=False)
    _progress: float = field(default=0.0, init=False)
    _next_progress: float = field(default=0.0, init=False)
    _garbage: GarbageFacts | None = field(default=None, init=False)
    _sample: MemoryReport | None = field(default=None, init=False)
    left_out: list[str] = field(factory=list, init=False)
    """What could not be looked at, and why."""

    async def run(self) -> Facts:
        """Look for as long as was asked for, and return what was seen."""
        self._locks.take()
        with self._watching_garbage():
            await self._look_until(0.5)
        self._locks.take()
        sampling = self._start_sampling()
        try:
            await self._look_until(1.0)
            self._locks.take()
            # Before the snapshot is forked: it is not to look like a lag.
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
            garbage=self._garbage,
            descriptors=self._counts.descriptors(),
            tasks=self._counts.tasks(),
            threads=self._counts.threads(),
        )

    @property
    def pause(self) -> float:
        """How long the process stood still for it [s]."""
        if self._sample is None:
            return 0.0
        pauses = self._sample.pauses
        return pauses.start + pauses.collection + pauses.end

    async def _look_until(self, part: float) -> None:
        """Look until that part of the duration is over."""
        end = self._began + part * self._duration
        while (left := end - trio.current_time()) > 0:
            self._main_thread.sample()
            self._counts.look()
            now = trio.current_time()
            if now >= self._next_progress:
                self._next_progress = now + _PROGRESS
                passed = min(1.0, (now - self._began) / self._duration)
                self._tell(_WATCHED * passed)
            await trio.sleep(min(left, SAMPLE_INTERVAL))

    def _tell(self, progress: float) -> None:
        self._progress = max(self._progress, round(progress, 3))
        self._call.progress({"progress": self._progress})

    @contextmanager
    def _watching_garbage(self) -> Iterator[None]:
        profile = GarbageProfiler()
        try:
            profile.start()
        except SupervisorError as exc:
            self.left_out.append(f"collections of garbage: {exc}")
            yield
            return
        try:
            yield
        finally:
            self._garbage = _garbage(profile.stop(), profile.stacks())

    def _start_sampling(self) -> MemorySampling | None:
        before = count_descriptors()
        try:
            with self._worker.held():
                sampling = MemorySampling.start(self._duration + _COUNTING)
        except SupervisorError as exc:
            self.left_out.append(f"who holds new objects: {exc}")
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
            self.left_out.append(f"who holds new objects: {exc}")

    async def _wait_for(self, snapshot: Snapshot) -> None:
        """Wait until it has said all, or its time is over."""
        with trio.move_on_after(max(0.0, snapshot.deadline - time.monotonic())):
            while not snapshot.is_over:
                await trio.lowlevel.wait_readable(snapshot.descriptor)
                progress = snapshot.receive()
                self._tell(_WATCHED + (1 - _WATCHED) * progress)

    def _main(self) -> MainThreadFacts:
        main = self._main_thread.facts(
            self._locks.wait_of(self._main_thread.main.thread)
        )
        if not main.silent:
            return main
        # It may have been so for long when we came.
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


async def examine(worker: ExaminedWorker, call: Caller, duration: float) -> Object:
    """Look at this process for *duration* seconds; return the fields of a `Diagnosis`.

    Called in the agent's loop. What cannot be looked at, as because another memory
    sample is under way, is left out and named. A cancellation leaves nothing behind.
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
        findings=tuple(Finding(**found.as_plain()) for found in diagnose(facts)),
        looked_at=looked_at(facts),
        left_out=tuple(examination.left_out),
        overhead=overhead,
        pause=examination.pause,
        facts=to_fields(facts),
    )
    return {**to_fields(diagnosis), "data": describe(diagnosis)}


def _garbage(report: GarbageReport, stacks: Sequence[GarbageStack]) -> GarbageFacts:
    times = dict[CodeLocation, float]()
    longest = dict[CodeLocation, list[CodeLocation]]()
    for stack in stacks:  # the longest first
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
