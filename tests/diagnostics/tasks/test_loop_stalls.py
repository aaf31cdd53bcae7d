"""Stalls of the main loop: found with their line, and none where there is none."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import anyio
import pytest
import trio
import trio.testing

from tests.kits.diagnostics import PATIENCE, look_until
from trio_supervisor.diagnostics.tasks.loop_stalls import StallWatch
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop, current_main_loop
from trio_supervisor.wire.reports import Stall, StallReport

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@contextmanager
def watched(threshold: float = 0.1) -> Iterator[StallWatch]:
    """Have another thread look at the loop that the caller runs."""
    watch = StallWatch(current_main_loop(), threshold, interval=0.01)
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.01):
            watch.look()

    thread = threading.Thread(target=look)
    thread.start()
    yield watch
    stop.set()
    thread.join()


Cause = Callable[[], Awaitable[object]]
IsIt = Callable[[Stall], object]


async def stalled_by(watch: StallWatch, cause: Cause, is_it: IsIt) -> StallReport:
    """Have *cause* stall the loop until the report tells of it, once it is over.

    On a busy machine the watching thread may miss one, and there may be others.
    """
    with anyio.fail_after(PATIENCE):
        while True:
            await cause()
            await anyio.sleep(0.05)
            report = watch.report()
            if any(stall.is_over and is_it(stall) for stall in report.stalls):
                return report


@BACKENDS
def test_stall_has_blocking_line_and_task(backend: str) -> None:
    async def culprit() -> None:
        time.sleep(0.3)  # noqa: ASYNC251 (what is to be found)

    async def commit() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(culprit, name="the culprit")

    def is_it(stall: Stall) -> bool:
        is_there = bool(stall.frames) and stall.frames[-1].function.endswith("culprit")
        return is_there and not stall.is_interpreter_held

    async def main() -> StallReport:
        with watched() as watch:
            return await stalled_by(watch, commit, is_it)

    report = anyio.run(main, backend=backend)
    assert report.loop == backend
    stall = next(stall for stall in report.stalls if is_it(stall))
    assert stall.task is not None
    assert "the culprit" in stall.task
    assert stall.frames[-1].source.startswith("time.sleep(0.3)")
    assert 0.1 <= stall.duration < PATIENCE
    assert report.count == len(report.stalls)
    assert report.longest >= stall.duration
    assert "the culprit" in report.data


@BACKENDS
def test_current_stall_is_reported(backend: str) -> None:
    async def main() -> StallReport:
        with watched() as watch:
            await anyio.sleep(0.03)
            return look_until(watch.report, lasting)

    def lasting(report: StallReport) -> list[Stall]:
        return [stall for stall in report.stalls if not stall.is_over]

    report = anyio.run(main, backend=backend)
    assert lasting(report) == [report.stalls[-1]]
    assert report.count == len(report.stalls)
    assert ", still" in report.data


def hold(length: int) -> None:
    """Hold the GIL: twice as long for each additional letter."""
    re.match(r"(a+)+b", "a" * length)


def timed(function: Callable[[], None]) -> float:
    """Return how long it takes, without what others took of the processor [s]."""
    began = time.thread_time()
    function()
    return time.thread_time() - began


@BACKENDS
def test_stall_by_c_code_that_holds_the_gil_is_found(backend: str) -> None:
    """The first other thread to run afterwards sees that it is still there."""

    length = 18
    while timed(partial(hold, length)) < 0.3:
        length += 1

    async def hold_it() -> None:
        await anyio.sleep(0.05)
        hold(length)

    def is_it(stall: Stall) -> bool:
        is_there = any(frame.function == "hold" for frame in stall.frames)
        return is_there and stall.is_interpreter_held

    async def main() -> StallReport:
        with watched() as watch:
            return await stalled_by(watch, hold_it, is_it)

    report = anyio.run(main, backend=backend)
    assert "C code held the GIL" in report.data


@BACKENDS
def test_idle_or_busy_loop_has_no_stall(
    backend: str,
) -> None:
    async def work() -> None:
        for _ in range(200):
            await anyio.lowlevel.checkpoint()

    async def main() -> StallReport:
        # More than this machine ever makes a thread wait for the processor.
        with watched(threshold=5) as watch:
            await anyio.sleep(0.1)
            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(work)
            return watch.report()

    report = anyio.run(main, backend=backend)
    assert report.stalls == ()
    assert report.count == 0
    assert report.watched > 0.1
    assert report.data.startswith("the event loop was never blocked")


def test_idle_loop_is_not_woken() -> None:
    """It is left alone as long as it waits for events."""

    async def main() -> list[object]:
        asked: list[object] = []
        main_loop = MainLoop(root=trio.lowlevel.current_root_task(), soon=asked.append)
        watch = StallWatch(main_loop)

        def is_waiting() -> bool:
            frame = main_loop.frame()
            return frame is not None and "_io_" in frame.f_code.co_filename

        def look() -> None:
            look_until(is_waiting, bool)
            for _ in range(10):
                watch.look()

        await trio.to_thread.run_sync(look)
        return asked

    assert trio.run(main) == []


def test_stall_report_keeps_latest_and_counts_all() -> None:
    """With a watch that calls anything a stall."""

    async def main() -> StallReport:
        watch = StallWatch(current_main_loop(), threshold=0.0, interval=0.0)
        for _ in range(120):
            watch.look()
            watch.look()
            await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
        return watch.report()

    report = trio.run(main)
    assert len(report.stalls) <= 51
    assert 100 <= report.count <= 121
    assert "the latest" in report.data


@pytest.mark.parametrize("main_loop", [MainLoop(), MainLoop(ident=-1)])
def test_plain_function_has_no_stalls(main_loop: MainLoop) -> None:
    watch = StallWatch(main_loop)
    watch.look()
    assert watch.report().data == "no event loop"
    assert watch.report().loop is None


@BACKENDS
def test_ended_loop_gets_no_ping(backend: str) -> None:
    async def main() -> StallWatch:
        return StallWatch(current_main_loop(), threshold=0.0, interval=0.0)

    watch = anyio.run(main, backend=backend)
    watch.look()
    watch.look()
    assert watch.report().count == 0


def test_asyncio_stall_names_task_and_function() -> None:
    async def main() -> StallReport:
        with watched() as watch:
            return await stalled_by(watch, run_task, is_it)

    async def run_task() -> None:
        await asyncio.create_task(block(), name="Task-7")

    async def block() -> None:
        time.sleep(0.3)  # noqa: ASYNC251 (what is to be found)

    def is_it(stall: Stall) -> bool:
        task = stall.task or ""
        return task.startswith("Task-7 (") and task.endswith("block)")

    assert asyncio.run(main()).loop == "asyncio"
