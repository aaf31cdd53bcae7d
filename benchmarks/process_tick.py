"""Measure a run of the process monitor over 1,000 processes, and how long it blocks."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Final

from benchmarks.clock import now
from benchmarks.floors import open_fork_client
from benchmarks.frame import Frame
from benchmarks.memory_tick import StandIn, measure_tick
from trio_supervisor import ProcessMonitor

_FLOOR: Final = "pread of stat, status and io of each"
_FILES: Final = ("stat", "status", "io")


async def run(frame: Frame) -> None:
    """Measure a tick without uss and pss."""
    count = frame.options.count(1000, quick=20)
    with open_fork_client() as forker, ExitStack() as stack:
        ids = forker.sleepers(count)
        opened = []
        for number in ids:
            for name in _FILES:
                path = f"/proc/{number}/{name}"
                opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                stack.callback(os.close, opened[-1])

        async def read() -> float:
            began = now()
            for descriptor in opened:
                os.pread(descriptor, 4096, 0)
            return now() - began

        monitor = ProcessMonitor()
        for number in ids:
            monitor.register(StandIn(number, f"worker.{number}", str(number)))
        await monitor.run_once()  # opens the descriptors
        name = f"process tick, {count} workers"
        await measure_tick(frame, name, monitor.run_once, (_FLOOR, read))
