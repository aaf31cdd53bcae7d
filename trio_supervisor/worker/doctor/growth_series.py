"""Count regularly what a process may accumulate, such as tasks or descriptors."""

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
"""Time between two counts [s]."""
_SHARE: Final = 0.05
"""Share of the time for counting one quantity: 10,000 tasks take about 10 ms, and must
be counted often enough in a few seconds."""
_HUNG_UP: Final = "closed by the peer"


@define(eq=False)
class CountSeries:
    """One quantity, counted regularly, and less often where counting takes long."""

    _count: Callable[[], int]
    _values: list[int] = field(factory=list, init=False)
    _next: float = field(default=0.0, init=False)

    def add(self) -> None:
        """Count, unless the interval since the last count has not passed."""
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
    """Counts all quantities from its creation on; call `add` often."""

    _main: MainLoop
    borrowed: int = field(default=0, init=False)
    """Descriptors that the examination itself has opened."""
    resident: CountSeries = field(factory=lambda: CountSeries(_resident), init=False)
    blocks: CountSeries = field(
        factory=lambda: CountSeries(sys.getallocatedblocks), init=False
    )
    _descriptors: CountSeries = field(init=False)
    _tasks: CountSeries = field(init=False)
    _threads: CountSeries = field(factory=lambda: CountSeries(_threads), init=False)
    _descriptor_counts: DescriptorCounts = field(factory=count_by_kind, init=False)
    _thread_locations: Counter[CodeLocation] = field(
        factory=thread_locations, init=False
    )
    _task_locations: Counter[CodeLocation] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._task_locations = task_locations(self._main)
        self._tasks = CountSeries(lambda: sum(1 for _ in coroutines(self._main)))
        self._descriptors = CountSeries(lambda: count_descriptors() - self.borrowed)

    def add(self) -> None:
        """Count each quantity that is due."""
        for series in (self.resident, self.blocks, self._descriptors):
            series.add()
        for series in (self._tasks, self._threads):
            series.add()

    def descriptors(self) -> DescriptorFacts:
        """Return the open descriptors; at the end, when `borrowed` ones are closed."""
        after = count_by_kind()
        grown = descriptor_growth(self._descriptor_counts, after)
        return DescriptorFacts(
            counts=(*self._descriptors.values, after.total),
            limit=after.limit,
            hung_up=min(_hung_up(self._descriptor_counts), _hung_up(after)),
            grown=tuple(line.strip() for line in grown.data.splitlines()[1:]),
        )

    def tasks(self) -> GrowthFacts:
        """Return the tasks of the event loop; call it at the end."""
        grown = grown_locations(self._task_locations, task_locations(self._main))
        return GrowthFacts(counts=self._tasks.values, grown=grown)

    def threads(self) -> GrowthFacts:
        """Return the threads; call it at the end."""
        grown = grown_locations(self._thread_locations, thread_locations())
        return GrowthFacts(counts=self._threads.values, grown=grown)


def count_descriptors() -> int:
    """Return the number of open descriptors; 0: unknown on this system."""
    for directory in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(directory)) - 1  # without the one of this listing
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
