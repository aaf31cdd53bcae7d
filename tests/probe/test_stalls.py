"""Stalls of the main loop: found with their line, and none where there is none."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import anyio
import pytest
import trio
import trio.testing

from tests.probe.probe_kit import look_until
from trio_supervisor.probe.main_loop import MainLoop, current_main_loop
from trio_supervisor.probe.stalls import StallWatch
from trio_supervisor.wire.reports import StallReport

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


async def come_round(watch: StallWatch, count: int = 1) -> StallReport:
    """Return the report once it tells of so many stalls that are over."""
    while True:
        report = watch.report()
        if len([stall for stall in report.stalls if stall.is_over]) >= count:
            return report
        await anyio.sleep(0.01)


@BACKENDS
def test_a_line_that_blocks_is_found_with_its_task(backend: str) -> None:
    async def culprit() -> None:
        time.sleep(0.3)  # noqa: ASYNC251 (what is to be found)

    async def main() -> StallReport:
        with watched() as watch:
            async with anyio.create_task_group() as group:
                group.start_soon(culprit, name="the culprit")
            return await come_round(watch)

    report = anyio.run(main, backend=backend)
    assert report.loop == backend
    stall = report.stalls[0]
    assert stall.task is not None
    assert "the culprit" in stall.task
    assert stall.frames[-1].source.startswith("time.sleep(0.3)")
    assert 0.15 < stall.duration < 3
    assert not stall.is_interpreter_held
    assert report.count == len(report.stalls)
    assert report.longest >= stall.duration
    assert "the culprit" in report.data


@BACKENDS
def test_a_stall_that_lasts_is_told_while_it_does(backend: str) -> None:
    async def main() -> StallReport:
        with watched() as watch:
            await anyio.sleep(0.03)
            report = look_until(watch.report, lambda report: report.stalls)
            await come_round(watch)
        return report

    report = anyio.run(main, backend=backend)
    (stall,) = report.stalls
    assert not stall.is_over
    assert report.count == 1
    assert ", still" in report.data


def hold(length: int) -> None:
    """Keep the interpreter to itself: twice as long for each letter more."""
    re.match(r"(a+)+b", "a" * length)


def timed(function: Callable[[], None]) -> float:
    began = time.monotonic()
    function()
    return time.monotonic() - began


@BACKENDS
def test_c_code_that_holds_the_interpreter_is_found(backend: str) -> None:
    """The first other thread to run afterwards sees that it is still there."""

    length = 18
    while timed(partial(hold, length)) < 0.3:
        length += 1

    async def main() -> StallReport:
        with watched() as watch:
            await anyio.sleep(0.05)
            hold(length)
            return await come_round(watch)

    report = anyio.run(main, backend=backend)
    held = [stall for stall in report.stalls if stall.is_interpreter_held]
    assert any(frame.function == "hold" for s in held for frame in s.frames)
    assert "C code held the interpreter" in report.data


@BACKENDS
def test_a_loop_that_is_idle_or_busy_with_many_things_is_not_stalled(
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
    assert report.data.startswith("the main loop never stalled")


def test_an_idle_loop_is_not_even_woken() -> None:
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


def test_only_the_latest_are_kept_and_all_are_counted() -> None:
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
def test_plain_code_has_no_loop_to_stall(main_loop: MainLoop) -> None:
    watch = StallWatch(main_loop)
    watch.look()
    assert watch.report().data == "no event loop"
    assert watch.report().loop is None


@BACKENDS
def test_a_loop_that_has_ended_is_not_asked_any_more(backend: str) -> None:
    async def main() -> StallWatch:
        return StallWatch(current_main_loop(), threshold=0.0, interval=0.0)

    watch = anyio.run(main, backend=backend)
    watch.look()
    watch.look()
    assert watch.report().count == 0


def test_an_asyncio_task_is_named_with_its_function() -> None:
    async def main() -> StallReport:
        with watched() as watch:
            await asyncio.create_task(block(), name="Task-7")
            return await come_round(watch)

    async def block() -> None:
        time.sleep(0.3)  # noqa: ASYNC251 (what is to be found)

    report = asyncio.run(main())
    assert report.stalls[0].task is not None
    assert report.stalls[0].task.startswith("Task-7 (")
    assert report.stalls[0].task.endswith("block)")
