"""Watches the main thread: where it is, whether its loop comes round, what it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from attrs import define, field, frozen

from trio_supervisor.diagnostics.locations import (
    Spot,
    application_spot,
    innermost_first,
    main_thread_name,
    stack_lines,
)
from trio_supervisor.diagnostics.profile.sampling import RUNNING, Sampler
from trio_supervisor.diagnostics.tasks.loop_stalls import StallWatch
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop
from trio_supervisor.policy.doctor.facts import Lines, MainThread
from trio_supervisor.worker.doctor.cpu_clock import ThreadClock
from trio_supervisor.worker.doctor.sync_progress import OneCall, turns_counted

LOOK: Final = 0.05
"""Between two looks [s]."""
STALL: Final = 0.1
"""What is told as a stall [s]: a look can miss nothing that is twice as long."""
_STACKS: Final = 300
"""Different ones that are kept."""


@frozen(kw_only=True)
class _Seen:
    """What the looks saw, by time."""

    running: float = 0.0
    place: str = ""
    share: float = 0.0
    stack: Lines = ()


@define(eq=False)
class MainWatch:
    """Made by `watching_main`; call `look` every `LOOK` seconds."""

    main: MainLoop
    _turns: Callable[[], int]
    _stalls: StallWatch = field(init=False)
    # Without the loop: suspended tasks are looked at by others.
    _sampler: Sampler = field(
        factory=lambda: Sampler(MainLoop(), LOOK, _STACKS), init=False
    )
    _clock: ThreadClock = field(init=False)
    _call: OneCall = field(factory=OneCall, init=False)

    def __attrs_post_init__(self) -> None:
        self._stalls = StallWatch(self.main, STALL, LOOK)
        self._clock = ThreadClock(self.main.thread)

    def look(self) -> None:
        """Look once."""
        self._stalls.look()
        self._sampler.sample()
        if not self.main.names:
            self._call.look(self.main.frame())

    def facts(self, lock: Lines) -> MainThread:
        """Return what was seen so far.

        Args:
            lock: The lock that it waits for all the time.
        """
        report, seen = self._stalls.report(), self._seen()
        worst = max(report.stalls, key=lambda stall: stall.duration, default=None)
        last = report.stalls[-1] if report.stalls else None
        stall = innermost_first(worst.frames) if worst is not None else []
        return MainThread(
            loop=report.loop,
            running=seen.running,
            cpu=self._clock.cpu,
            queued=self._clock.queued,
            place=seen.place,
            share=seen.share,
            stack=seen.stack,
            silent=last.duration if last is not None and not last.is_over else 0.0,
            stalls=report.count,
            longest=report.longest,
            stall_place=str(application_spot(stall) or ""),
            stall=stack_lines(stall),
            is_held=any(stall.is_interpreter_held for stall in report.stalls),
            is_one_call=self._call.is_one,
            has_turned=self._turns() > 0,
            lock=lock,
        )

    def end(self) -> None:
        """Let go of what is held of the thread."""
        self._call.end()

    def _seen(self) -> _Seen:
        name = main_thread_name(self.main)
        stacks = [s for s in self._sampler.profile().stacks if s.thread == name]
        total = running = 0
        times = dict[Spot, int]()
        longest = dict[Spot, list[Spot]]()
        for stack in stacks:  # the longest first
            total += stack.time
            running += stack.time if stack.kind == RUNNING else 0
            spots = innermost_first(stack.lines)
            if (spot := application_spot(spots)) is not None:
                times[spot] = times.get(spot, 0) + stack.time
                longest.setdefault(spot, spots)
        if not total or not times:
            return _Seen()
        place = max(times, key=lambda spot: times[spot])
        return _Seen(
            running=running / total,
            place=str(place),
            share=times[place] / total,
            stack=stack_lines(longest[place]),
        )


@contextmanager
def watching_main(main: MainLoop) -> Iterator[MainWatch]:
    """Watch *main* for the length of the block."""
    with turns_counted(main) as turns:
        watch = MainWatch(main, turns)
        try:
            yield watch
        finally:
            watch.end()
