"""Sample the main thread: its stack, its event loop's stalls and its CPU time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from attrs import define, field, frozen

from trio_supervisor.diagnostics.locations import (
    CodeLocation,
    application_location,
    innermost_first,
    main_thread_name,
    stack_lines,
)
from trio_supervisor.diagnostics.profile.sampling import RUNNING, Sampler
from trio_supervisor.diagnostics.tasks.loop_stalls import StallWatch
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop
from trio_supervisor.policy.doctor.facts import Lines, MainThreadFacts
from trio_supervisor.worker.doctor.cpu_clock import ThreadClock
from trio_supervisor.worker.doctor.sync_progress import SingleCallDetector

SAMPLE_INTERVAL: Final = 0.05
"""Time between two samples [s]."""
STALL: Final = 0.1
"""Shortest stall that is reported [s]: no stall of twice the interval is missed."""
_MAX_STACKS: Final = 300
"""Different stacks that are kept."""


@frozen(kw_only=True)
class _StackSummary:
    """Where the samples saw the main thread, weighted by time."""

    running: float = 0.0
    place: str = ""
    share: float = 0.0
    stack: Lines = ()


@define(eq=False)
class MainThreadSampler:
    """Samples the main thread; made by `sampling_main_thread`.

    Call `sample` every `SAMPLE_INTERVAL` seconds.

    Args:
        stop_checks: Returns how often a sync target has checked ``stopping``.
    """

    main: MainLoop
    _stop_checks: Callable[[], int]
    _checks_before: int = field(init=False)
    _stalls: StallWatch = field(init=False)
    # Without the loop: nothing here needs the stacks of suspended tasks.
    _sampler: Sampler = field(
        factory=lambda: Sampler(MainLoop(), SAMPLE_INTERVAL, _MAX_STACKS), init=False
    )
    _clock: ThreadClock = field(init=False)
    _call: SingleCallDetector = field(factory=SingleCallDetector, init=False)

    def __attrs_post_init__(self) -> None:
        self._checks_before = self._stop_checks()
        self._stalls = StallWatch(self.main, STALL, SAMPLE_INTERVAL)
        self._clock = ThreadClock(self.main.thread)

    def sample(self) -> None:
        """Take one sample."""
        self._stalls.look()
        self._sampler.sample()
        if not self.main.names:
            self._call.sample(self.main.frame())

    def facts(self, lock: Lines) -> MainThreadFacts:
        """Return what the samples showed so far.

        Args:
            lock: The lock that the thread has waited for in all lock samples.
        """
        report, summary = self._stalls.report(), self._summarize_stacks()
        worst = max(report.stalls, key=lambda stall: stall.duration, default=None)
        last = report.stalls[-1] if report.stalls else None
        stall = innermost_first(worst.frames) if worst is not None else []
        return MainThreadFacts(
            loop=report.loop,
            running=summary.running,
            cpu=self._clock.cpu,
            queued=self._clock.queued,
            place=summary.place,
            share=summary.share,
            stack=summary.stack,
            silent=last.duration if last is not None and not last.is_over else 0.0,
            stalls=report.count,
            longest=report.longest,
            stall_place=str(application_location(stall) or ""),
            stall=stack_lines(stall),
            is_held=any(stall.is_interpreter_held for stall in report.stalls),
            is_one_call=self._call.is_single_call,
            has_turned=self._stop_checks() > self._checks_before,
            lock=lock,
        )

    def close(self) -> None:
        """Release the frames of the main thread."""
        self._call.close()

    def _summarize_stacks(self) -> _StackSummary:
        name = main_thread_name(self.main)
        stacks = [s for s in self._sampler.profile().stacks if s.thread == name]
        total = running = 0
        times = dict[CodeLocation, int]()
        longest = dict[CodeLocation, list[CodeLocation]]()
        for stack in stacks:  # the longest first
            total += stack.time
            running += stack.time if stack.kind == RUNNING else 0
            locations = innermost_first(stack.lines)
            if (location := application_location(locations)) is not None:
                times[location] = times.get(location, 0) + stack.time
                longest.setdefault(location, locations)
        if not total or not times:
            return _StackSummary()
        place = max(times, key=lambda location: times[location])
        return _StackSummary(
            running=running / total,
            place=str(place),
            share=times[place] / total,
            stack=stack_lines(longest[place]),
        )


@contextmanager
def sampling_main_thread(
    main: MainLoop, stop_checks: Callable[[], int]
) -> Iterator[MainThreadSampler]:
    """Yield a sampler of the thread of *main*; release its frames at the end."""
    sampler = MainThreadSampler(main, stop_checks)
    try:
        yield sampler
    finally:
        sampler.close()
