"""Sample what the process tree of each worker uses."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.errors import SpecError
from trio_supervisor.policy.process_usage import (
    UsageSample,
    copy_details,
    cpu_seconds_since,
    find_trees,
    total,
)
from trio_supervisor.supervisor.monitors.base import Monitor, MonitoredWorker
from trio_supervisor.supervisor.monitors.process_samples import (
    ProcessReader,
    add_memory,
    default_reader,
)

# Time after which other tasks get a turn [s].
_TURN: Final = 0.001
_DETAILED: Final = 250
"""Processes whose details are read in one run, in rotation: they take twice as long as
all other figures together."""


@define(eq=False)
class _Turn:
    """Lets other tasks run after each millisecond of work."""

    _began: float = field(factory=time.perf_counter)

    async def end_if_over(self) -> None:
        if time.perf_counter() - self._began > _TURN:
            await trio.lowlevel.checkpoint()
            self._began = time.perf_counter()


class ProcessMonitor(Monitor):
    """Samples what each worker and its descendants use: processor, memory, io.

    ``status`` shows CPU and memory of each worker; ``status --json`` shows all figures
    under ``monitors.process_monitor``. It restarts no worker.

    Example::

        Application([Service("web", "app:serve")], monitors=[ProcessMonitor()])

    Args:
        interval: Time between two samples [s].
        reads_pss: Whether to read uss and pss too. For them the kernel walks all pages
            of a process: 0.7 ms for a small worker, 26 ms for one of 2 GiB, in a
            thread.

    Raises:
        SpecError: an argument is invalid; the message names it.
    """

    def __init__(self, *, interval: float = 10.0, reads_pss: bool = False) -> None:
        super().__init__(interval=interval)
        if not isinstance(reads_pss, bool):
            problem = f"expected true or false, got {reads_pss!r:.80}"
            raise SpecError("reads_pss", problem)
        self.reads_pss = reads_pss
        self._reader: ProcessReader = default_reader()
        self._workers: dict[str, MonitoredWorker] = {}
        self._samples: dict[int, UsageSample] = {}
        """The samples of the last run, by process id."""
        self._last_detailed = 0
        """The process whose details were read last; the next run goes on after it."""
        self._sampled_at = 0.0
        self._usage: dict[int, dict[str, object]] = {}
        """By process id of the worker."""

    def register(self, worker: MonitoredWorker) -> None:
        """Sample *worker* from now on."""
        self._workers[worker.connection_id] = worker

    def remove(self, worker: MonitoredWorker) -> None:
        """Forget *worker*."""
        self._workers.pop(worker.connection_id, None)
        self._usage.pop(worker.process_id, None)

    async def run_once(self) -> None:
        """Sample the process trees of all workers."""
        turn, reader = _Turn(), self._reader
        samples: dict[int, UsageSample] = {}
        for process_id in reader.process_ids():
            if (sample := reader.read(process_id)) is not None:
                samples[process_id] = sample
            await turn.end_if_over()
        reader.forget_others(samples)
        now = time.monotonic()
        roots = {each.process_id: each for each in self._workers.values()}
        trees = find_trees(samples, roots)
        members = [sample for tree in trees.values() for sample in tree]
        due = self._due_for_details(each.process_id for each in members)
        for sample in members:
            if sample.process_id in due:
                reader.complete(sample)
            else:
                copy_details(self._samples, sample)
            await turn.end_if_over()
        if self.reads_pss:
            await trio.to_thread.run_sync(_add_memory, list(trees.values()))
        usage = {}
        seconds = now - self._sampled_at if self._sampled_at else 0.0
        for root, tree in trees.items():
            usage[root] = {
                "name": roots[root].name,
                **self._usage_of(tree, seconds, roots[root].uptime),
            }
            await turn.end_if_over()
        connected = {each.process_id for each in self._workers.values()}
        self._usage = {root: usage[root] for root in usage if root in connected}
        self._samples = {each.process_id: each for each in members}
        self._sampled_at = now

    def status(self) -> Mapping[str, object]:
        """Return the last figures of each worker, by its process id."""
        return {"processes": {str(root): use for root, use in self._usage.items()}}

    def _due_for_details(self, process_ids: Iterable[int]) -> set[int]:
        """Return the processes whose turn it is, of those that there are now."""
        in_order = sorted(
            process_ids, key=lambda each: (each <= self._last_detailed, each)
        )
        due = in_order[:_DETAILED]
        self._last_detailed = due[-1] if due else 0
        return set(due)

    def _usage_of(
        self, tree: list[UsageSample], seconds: float, age: float | None
    ) -> dict[str, object]:
        share = None
        if seconds:
            share = round(cpu_seconds_since(self._samples, tree) / seconds, 4)
        return {
            "state": tree[0].state,
            "age": age,
            "process_count": len(tree),
            "process_ids": [each.process_id for each in tree],
            "cpu_share": share,
            **total(tree),
        }


def _add_memory(trees: Iterable[Iterable[UsageSample]]) -> None:
    for tree in trees:
        for sample in tree:
            add_memory(sample)
