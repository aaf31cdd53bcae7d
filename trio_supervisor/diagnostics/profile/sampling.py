"""Sample the stacks of all threads and tasks, from a thread of its own.

Each sample is weighted by the time since the one before, not counted as one tick: where
C code held the GIL for long, the next sample weighs as much as that took.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import islice
from types import CodeType, FrameType
from typing import Final

from attrs import define, field, frozen

from trio_supervisor.diagnostics.stacks.blocking_calls import WaitDetector
from trio_supervisor.diagnostics.stacks.frames import (
    outwards,
    printable,
    running_threads,
)
from trio_supervisor.diagnostics.tasks.await_frames import await_frames, is_running
from trio_supervisor.diagnostics.tasks.coroutines import coroutines
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop
from trio_supervisor.wire.reports import HotLine

RUNNING: Final = "running"
WAITING: Final = "waiting"
TASKS: Final = "tasks"
OTHER: Final = "(other stacks)"
"""Stands for the stacks beyond the maximum."""
_MAX_FRAMES: Final = 200
"""Innermost frames that are kept of a stack."""
_TASK_SHARE: Final = 0.02
"""Share of the time for sampling tasks: 1,000 of them take about 10 ms."""
_HOTTEST: Final = 10
_Key = tuple[object, ...]


@frozen
class StackLine:
    """A line of code in a stack."""

    file: str
    line: int
    function: str


@frozen(kw_only=True)
class SampledStack:
    """A stack, and the time it was sampled for."""

    kind: str
    """`RUNNING`, `WAITING` or `TASKS`."""
    thread: str
    """The thread's name; empty for a task."""
    lines: tuple[StackLine, ...]
    """Innermost last; empty: it stands for the stacks beyond the maximum."""
    count: int
    """Number of samples."""
    time: int
    """Total weight of the samples [ns]."""


@frozen(kw_only=True)
class SampledProfile:
    """The result of a `Sampler`."""

    stacks: tuple[SampledStack, ...]
    """The longest first."""
    samples: int
    interval: float
    """As requested [s]."""
    duration: float
    """[s]"""
    overhead: float
    """Share of the duration that sampling took, from 0 to 1."""
    task_samples: int
    """Number of samples of the tasks."""

    def time_of(self, kind: str) -> float:
        """Return the time of all stacks of *kind* [s]."""
        return sum(stack.time for stack in self.stacks if stack.kind == kind) / 1e9

    @property
    def overflow(self) -> float:
        """Time of the stacks beyond the maximum [s]."""
        return sum(stack.time for stack in self.stacks if not stack.lines) / 1e9

    def hottest(self) -> tuple[HotLine, ...]:
        """Return the lines at which running threads spent the most time."""
        times = dict[StackLine, int]()
        total = 0
        for stack in self.stacks:
            if stack.kind == RUNNING and stack.lines:
                line = stack.lines[-1]
                times[line] = times.get(line, 0) + stack.time
                total += stack.time
        ordered = sorted(times.items(), key=lambda item: item[1], reverse=True)
        return tuple(
            HotLine(
                file=line.file,
                line=line.line,
                function=line.function,
                time=spent / 1e9,
                share=spent / total if total else 0.0,
            )
            for line, spent in ordered[:_HOTTEST]
        )


@define(eq=False)
class _StackTotal:
    frames: tuple[tuple[CodeType, int], ...]
    count: int = 0
    time: int = 0


@define(eq=False)
class Sampler:
    """Takes one sample per call of `sample`; the caller keeps the interval.

    The stack of the calling thread is left out.

    Args:
        main: The event loop whose suspended tasks are sampled too, as wall time.
        interval: The time between two samples that the caller intends [s].
        max_stacks: Different stacks that are kept; the time of further ones is added
            up. A stack takes about 2 kB.
    """

    _main: MainLoop
    _interval: float = 0.01
    _max_stacks: int = 5000
    _stacks: dict[_Key, _StackTotal] = field(factory=dict, init=False)
    _waits: WaitDetector = field(factory=WaitDetector, init=False)
    _samples: int = field(default=0, init=False)
    _task_samples: int = field(default=0, init=False)
    _spent: int = field(default=0, init=False)
    _started: int = field(factory=time.perf_counter_ns, init=False)
    _last: int = field(init=False)
    _tasks_last: int = field(init=False)
    _tasks_next: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._last = self._tasks_last = self._started

    def sample(self) -> None:
        """Take one sample."""
        began = time.perf_counter_ns()
        passed, self._last = began - self._last, began
        self._samples += 1
        self._sample_threads(passed)
        if self._main.names and began >= self._tasks_next:
            passed, self._tasks_last = began - self._tasks_last, began
            self._task_samples += 1
            self._sample_tasks(passed)
            took = time.perf_counter_ns() - began
            self._tasks_next = began + int(took / _TASK_SHARE)
        self._spent += time.perf_counter_ns() - began

    def profile(self) -> SampledProfile:
        """Return the profile so far."""
        duration = max(1, self._last - self._started)
        stacks = [
            SampledStack(
                kind=str(kind),
                thread=str(thread),
                lines=_lines(total.frames),
                count=total.count,
                time=total.time,
            )
            for (kind, thread, *_), total in self._stacks.items()
        ]
        stacks.sort(key=lambda stack: stack.time, reverse=True)
        return SampledProfile(
            stacks=tuple(stacks),
            samples=self._samples,
            interval=self._interval,
            duration=duration / 1e9,
            overhead=min(1.0, self._spent / duration),
            task_samples=self._task_samples,
        )

    def _sample_threads(self, passed: int) -> None:
        own = threading.get_ident()
        for thread in running_threads():
            if thread.ident != own:
                kind = WAITING if self._waits.is_waiting(thread, passed) else RUNNING
                frames = list(islice(outwards(thread.frame), _MAX_FRAMES))
                frames.reverse()
                self._add(kind, thread.name, frames, passed)

    def _sample_tasks(self, passed: int) -> None:
        for coroutine in coroutines(self._main):
            if not is_running(coroutine):
                frames = list(await_frames(coroutine))[-_MAX_FRAMES:]
                if frames:
                    self._add(TASKS, "", frames, passed)

    def _add(
        self, kind: str, thread: str, frames: Sequence[FrameType], passed: int
    ) -> None:
        # By address: hashing a code object hashes all of its contents. The entry keeps
        # the code alive, so that its address is not reused.
        key: list[object] = [kind, thread]
        for frame in frames:
            key += (id(frame.f_code), frame.f_lineno)
        stack: _Key = tuple(key)
        if (total := self._stacks.get(stack)) is None:
            if len(self._stacks) < self._max_stacks:
                places = [(frame.f_code, frame.f_lineno or 0) for frame in frames]
                total = self._stacks[stack] = _StackTotal(tuple(places))
            else:
                # One entry per kind: at most three more.
                total = self._stacks.setdefault((kind, ""), _StackTotal(()))
        total.count += 1
        total.time += passed


def profile_for(
    duration: float, interval: float = 0.01, main: MainLoop | None = None
) -> SampledProfile:
    """Sample for *duration* seconds, blocking the calling thread."""
    sampler = Sampler(main or MainLoop(), interval)
    end = time.monotonic() + duration
    while time.monotonic() < end:
        sampler.sample()
        time.sleep(interval)
    return sampler.profile()


def _lines(frames: Sequence[tuple[CodeType, int]]) -> tuple[StackLine, ...]:
    return tuple(
        StackLine(
            file=printable(code.co_filename), line=line, function=code.co_qualname
        )
        for code, line in frames
    )
