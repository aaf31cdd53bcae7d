"""Measure the CPU and memory use of 100 idle workers."""

from __future__ import annotations

from statistics import median

import psutil
import trio

from benchmarks.frame import Frame
from benchmarks.serving import Served, open_served
from trio_supervisor.application.immortality import (
    immortality_problem,
    this_interpreter,
)

_REPEATS = 3


async def run(frame: Frame) -> None:
    """Measure over 30 s, three times: each is the sum of thousands of wake-ups."""
    count = frame.options.count(100)
    seconds = frame.options.count(30, quick=1)
    repeats = 1 if frame.options.is_quick else _REPEATS
    async with open_served(count) as served:
        await served.wait_all_ready()
        await served.settle()
        await trio.sleep(frame.options.count(5, quick=0))
        both = [
            psutil.Process(served.process.pid),
            psutil.Process(served.process_ids["supervisor"]),
        ]

        async def burn() -> float:
            before = sum(map(_cpu_time, both))
            await trio.sleep(seconds)
            return sum(map(_cpu_time, both)) - before

        async def memory_of_both() -> float:
            return sum(map(_pss, both))

        async def memory_of_worker() -> float:
            return _worker_pss(served)

        name = f"idle: CPU of both, {count} workers, {seconds} s"
        await frame.measure(name, burn, unit="s", repeats=repeats)
        name = f"idle: PSS of both, {count} workers"
        await frame.measure(name, memory_of_both, unit="MiB", repeats=repeats)
        name = f"idle: PSS of a worker, {count} workers"
        await frame.measure(name, memory_of_worker, unit="MiB", repeats=repeats)
    if not immortality_problem(this_interpreter()):
        await _measure_immortal(frame, count, repeats)


async def _measure_immortal(frame: Frame, count: int, repeats: int) -> None:
    """Measure a worker's memory with ``immortal_preload``."""
    async with open_served(count, BENCHMARKS_IMMORTAL="1") as served:
        await served.wait_all_ready()
        await served.settle()
        await trio.sleep(frame.options.count(5, quick=0))

        async def memory_of_worker() -> float:
            return _worker_pss(served)

        name = f"idle: PSS of a worker with immortal_preload, {count} workers"
        await frame.measure(name, memory_of_worker, unit="MiB", repeats=repeats)


def _cpu_time(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _pss(process: psutil.Process) -> float:
    return process.memory_full_info().pss / 2**20


def _worker_pss(served: Served) -> float:
    workers = (psutil.Process(served.process_ids[name]) for name in served.workers)
    return median(map(_pss, workers))
