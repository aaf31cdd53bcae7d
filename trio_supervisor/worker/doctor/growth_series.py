"""Counts what a process may have more and more of, while time passes."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from attrs import define, field

from trio_supervisor.diagnostics.descriptors.descriptor_counts import (
    DescriptorCounts,
    count_by_kind,
    descriptor_growth,
)
from trio_supervisor.diagnostics.locations import (
    CodeLocation,
    grown_locations,
    task_locations,
    thread_locations,
)
from trio_supervisor.diagnostics.memory_usage import read_memory
from trio_supervisor.diagnostics.tasks.coroutines import coroutines
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop
from trio_supervisor.policy.doctor.facts import DescriptorFacts, GrowthFacts

_INTERVAL: Final = 0.1
"""Between two counts [s]."""
_SHARE: Final = 0.05
"""Of the time that may go into counting one thing: 10,000 tasks take some 10 ms, and
have to be counted often enough in a few seconds."""
_HUNG_UP: Final = "hung up by the peer"


@define(eq=False)
class Series:
    """The same thing, counted again and again; seldom, where that takes long."""

    _count: Callable[[], int]
    _values: list[int] = field(factory=list, init=False)
    _next: float = field(default=0.0, init=False)

    def add(self) -> None:
        """Count, unless it is too early for that."""
        began = time.perf_counter()
        if began >= self._next:
            self._values.append(self._count())
            took = time.perf_counter() - began
            self._next = began + max(_INTERVAL, took / _SHARE)

    @property
    def values(self) -> tuple[int, ...]:
        """All counts so far."""
        return tuple(self._values)


@define(eq=False)
class Counts:
    """Begins when it is made; call `look` all the time."""

    _main: MainLoop
    borrowed: int = field(default=0, init=False)
    """Descriptors that are open for the examination itself."""
    resident: Series = field(factory=lambda: Series(_resident), init=False)
    blocks: Series = field(factory=lambda: Series(sys.getallocatedblocks), init=False)
    _descriptors: Series = field(init=False)
    _tasks: Series = field(init=False)
    _threads: Series = field(factory=lambda: Series(_threads), init=False)
    _census: DescriptorCounts = field(factory=count_by_kind, init=False)
    _thread_locations: Counter[CodeLocation] = field(
        factory=thread_locations, init=False
    )
    _task_locations: Counter[CodeLocation] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._task_locations = task_locations(self._main)
        self._tasks = Series(lambda: sum(1 for _ in coroutines(self._main)))
        self._descriptors = Series(lambda: count_descriptors() - self.borrowed)

    def look(self) -> None:
        """Count what is due."""
        for series in (self.resident, self.blocks, self._descriptors):
            series.add()
        for series in (self._tasks, self._threads):
            series.add()

    def descriptors(self) -> DescriptorFacts:
        """Return the open descriptors; at the end, when none is borrowed any more."""
        after = count_by_kind()
        grown = descriptor_growth(self._census, after)
        return DescriptorFacts(
            counts=(*self._descriptors.values, after.total),
            limit=after.limit,
            hung_up=min(_hung_up(self._census), _hung_up(after)),
            grown=tuple(line.strip() for line in grown.data.splitlines()[1:]),
        )

    def tasks(self) -> GrowthFacts:
        """Return the tasks of the event loop; at the end."""
        grown = grown_locations(self._task_locations, task_locations(self._main))
        return GrowthFacts(counts=self._tasks.values, grown=grown)

    def threads(self) -> GrowthFacts:
        """Return the threads; at the end."""
        grown = grown_locations(self._thread_locations, thread_locations())
        return GrowthFacts(counts=self._threads.values, grown=grown)


def count_descriptors() -> int:
    """Return how many are open; 0: this system does not tell."""
    for directory in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(directory)) - 1  # but for the one that lists them
    return 0


def _resident() -> int:
    memory = read_memory(os.getpid(), is_full=False)
    return memory[0] if memory else 0


def _threads() -> int:
    return len(sys._current_frames())


def _hung_up(counts: DescriptorCounts) -> int:
    return sum(
        count
        for names in counts.counts.values()
        for name, count in names.items()
        if name.endswith(_HUNG_UP)
    )
