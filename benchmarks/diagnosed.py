"""Run a process to diagnose: a heap of a given size, a ticker in its main loop.

``python -m benchmarks.diagnosed OBJECTS`` reads the name of an operation from standard
input and writes the longest gap of the main loop during it, and its duration.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import trio

from trio_supervisor.diagnostics.heap.heap_dump import HeapDump
from trio_supervisor.diagnostics.memory.memory_sample import MemorySampling
from trio_supervisor.diagnostics.profile.garbage import GarbageProfiler
from trio_supervisor.diagnostics.profile.sampling import profile_for
from trio_supervisor.diagnostics.stacks.thread_stacks import thread_report
from trio_supervisor.diagnostics.tasks.loop_stalls import StallWatch
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop, current_main_loop
from trio_supervisor.diagnostics.tasks.report import scheduler_report

_TICK = 0.001
_PERIOD = 1.0
_BOX = 300.0


BUSY = "busy"
"""Request the iterations of a busy loop, alone and with the stall watch."""


class Thing:
    """An object that fills the heap."""

    def __init__(self, number: int) -> None:
        self.number = number


def _nothing(main: MainLoop) -> None:
    time.sleep(_PERIOD)


def _threads(main: MainLoop) -> None:
    thread_report()


def _tasks(main: MainLoop) -> None:
    scheduler_report(main)


def _sample(main: MainLoop) -> None:
    sampling = MemorySampling.start(_BOX)
    time.sleep(_PERIOD)
    sampling.finish(_BOX)


def _dump(main: MainLoop) -> None:
    with tempfile.TemporaryDirectory() as directory:
        dump = HeapDump.start(os.path.join(directory, "heap"), _BOX)
        dump.snapshot.wait()
        dump.finish()


def _garbage(main: MainLoop) -> None:
    profile = GarbageProfiler()
    profile.start()
    time.sleep(_PERIOD)
    profile.stop()


def _profile(main: MainLoop) -> None:
    profile_for(_PERIOD, 0.01, main)


def _stalls(main: MainLoop) -> None:
    watch = StallWatch(main, 0.25, 0.25)
    end = time.monotonic() + _PERIOD
    while time.monotonic() < end:
        watch.look()
        time.sleep(0.25)


def _muppy(main: MainLoop) -> None:
    from pympler import muppy, summary

    summary.summarize(muppy.get_objects())  # type: ignore[no-untyped-call]


def _tracker(main: MainLoop) -> None:
    from pympler.tracker import SummaryTracker

    tracker = SummaryTracker()  # type: ignore[no-untyped-call]
    time.sleep(_PERIOD)
    tracker.diff()  # type: ignore[no-untyped-call]


def _collect(main: MainLoop) -> None:
    gc.collect()


LOOKS: dict[str, Callable[[MainLoop], Any]] = {
    "nothing": _nothing,
    "thread_dump": _threads,
    "scheduler_dump": _tasks,
    "memory_sample": _sample,
    "memory_dump": _dump,
    "garbage_profile": _garbage,
    "profile": _profile,
    "slow_tasks": _stalls,
    "pympler muppy": _muppy,
    "pympler tracker": _tracker,
    "gc.collect": _collect,
}


class _Busy:
    """A main loop that is always busy and counts its iterations."""

    def __init__(self, token: trio.lowlevel.TrioToken, nursery: trio.Nursery) -> None:
        self._token, self._nursery = token, nursery
        self._rounds = 0
        self._is_over = False

    def rate(self, beside: Callable[[], None]) -> float:
        """Return iterations per second while *beside* runs in this thread [1/s]."""
        self._rounds, self._is_over = 0, False
        self._token.run_sync_soon(self._nursery.start_soon, self._run)
        began = time.perf_counter()
        beside()
        passed, rounds = time.perf_counter() - began, self._rounds
        self._is_over = True
        return rounds / passed

    async def _run(self) -> None:
        while not self._is_over:
            await trio.lowlevel.checkpoint()
            self._rounds += 1


class _Ticker:
    """The longest gap of the main loop since the last reset [s]."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        last = time.perf_counter()
        while True:
            await trio.sleep(_TICK)
            now = time.perf_counter()
            self.longest = max(self.longest, now - last - _TICK)
            last = now


def _answer(
    ticker: _Ticker, busy: _Busy, main: MainLoop, done: Callable[[], None]
) -> None:
    sys.setswitchinterval(1e-4)  # as in a worker
    for line in sys.stdin:
        if line.strip() == BUSY:
            alone = busy.rate(lambda: time.sleep(_PERIOD))
            watched = busy.rate(lambda: _stalls(main))
            print(alone, watched, flush=True)
            continue
        ticker.longest = 0.0
        began = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            LOOKS[line.strip()](main)
        took = time.perf_counter() - began
        time.sleep(2 * _TICK)
        print(ticker.longest * 1000, took * 1000, flush=True)
    done()


def _heap(count: int) -> Iterator[object]:
    for number in range(count // 2):
        yield Thing(number)
        yield [number]


async def _main(count: int) -> None:
    heap = list(_heap(count))
    gc.collect()
    main = current_main_loop()
    ticker = _Ticker()
    token = trio.lowlevel.current_trio_token()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)

        def done() -> None:
            token.run_sync_soon(nursery.cancel_scope.cancel)

        busy = _Busy(token, nursery)
        threading.Thread(target=_answer, args=(ticker, busy, main, done)).start()
        print("ready", flush=True)
    assert heap


if __name__ == "__main__":
    trio.run(_main, int(sys.argv[1]))
