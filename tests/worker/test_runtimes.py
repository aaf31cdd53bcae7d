"""Targets under real loops, in the main thread, ended from another one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from tests.kits.serving import short_directory
from tests.kits.worker import Ear, make_boot, open_ear
from trio_supervisor import SyncWorker, Worker
from trio_supervisor.worker.runtimes import AsyncRuntime, SyncRuntime

Target = Callable[[Worker], Awaitable[object]]
both = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where the sockets are."""
    with short_directory() as directory:
        yield directory


@pytest.fixture
def ear(directory: Path) -> Iterator[Ear]:
    """What the controller hears."""
    with open_ear(directory) as ear:
        yield ear


def make_async(
    directory: Path, ear: Ear, backend: str, target: Target, **fields: Any
) -> AsyncRuntime:
    """Return what runs *target* under *backend*."""
    boot = make_boot(directory, **fields)
    return AsyncRuntime(
        boot,
        lambda: Worker._create(boot, ear.notifier),
        ear.notifier,
        target,
        backend,
        lambda loop: None,
    )


@contextmanager
def once_ready(ear: Ear, act: Callable[[], None]) -> Iterator[None]:
    """Have *act* called by another thread when the worker has said that it is ready."""

    def run() -> None:
        while ear.next() != "READY=1":
            pass
        act()

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()


@both
def test_run_ends_when_target_returns(directory: Path, ear: Ear, backend: str) -> None:
    async def target(worker: Worker) -> None:
        await worker.status("done")

    make_async(directory, ear, backend, target).run()

    assert ear.rest() == ["STATUS=done"]


@both
@pytest.mark.parametrize("error", [LookupError("mine"), SystemExit(3)])
def test_run_raises_target_exception_unwrapped(
    directory: Path, ear: Ear, backend: str, error: BaseException
) -> None:
    async def target(worker: Worker) -> None:
        await worker.healthy()
        raise error

    with pytest.raises(type(error)) as caught:
        make_async(directory, ear, backend, target).run()

    assert caught.value is error


@both
def test_target_that_ignores_stopping_is_cancelled(
    directory: Path, ear: Ear, backend: str
) -> None:
    steps: list[str] = []

    async def target(worker: Worker) -> None:
        await worker.ready()
        try:
            await anyio.sleep_forever()
        finally:
            steps.append("cleaned up")

    runtime = make_async(directory, ear, backend, target)
    with once_ready(ear, lambda: runtime.stop(False)):
        runtime.run()

    assert steps == ["cleaned up"]


@both
def test_target_that_waits_in_a_nursery_is_cancelled_without_error(
    directory: Path, ear: Ear, backend: str
) -> None:
    """Trio wraps the cancellation in a group."""

    async def target(worker: Worker) -> None:
        await worker.ready()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)

    async def target_of_trio(worker: Worker) -> None:
        await worker.ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)

    chosen = target_of_trio if backend == "trio" else target
    runtime = make_async(directory, ear, backend, chosen)
    with once_ready(ear, lambda: runtime.stop(False)):
        runtime.run()


def test_error_beside_a_cancellation_is_raised_alone(directory: Path, ear: Ear) -> None:
    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("mine")

    async def target(worker: Worker) -> None:
        await worker.ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fail_when_cancelled)

    runtime = make_async(directory, ear, "trio", target)
    with (
        once_ready(ear, lambda: runtime.stop(False)),
        pytest.raises(BaseExceptionGroup) as caught,
    ):
        runtime.run()
    assert [str(each) for each in caught.value.exceptions] == ["mine"]


@both
def test_target_that_checks_stopping_is_trusted_until_forced(
    directory: Path, ear: Ear, backend: str
) -> None:
    steps: list[str] = []

    async def target(worker: Worker) -> None:
        stopping = worker.stopping
        await worker.ready()
        await stopping.wait()
        steps.append("asked")
        await worker.ready()
        try:
            await anyio.sleep_forever()
        finally:
            steps.append("forced")

    runtime = make_async(directory, ear, backend, target)

    def stop_twice() -> None:
        runtime.stop(False)
        assert ear.next() == "READY=1"
        runtime.stop(True)

    with once_ready(ear, stop_twice):
        runtime.run()

    assert steps == ["asked", "forced"]


@both
def test_stop_before_target_starts_is_seen(
    directory: Path, ear: Ear, backend: str
) -> None:
    """It runs up to its first checkpoint; one that looks sees it at once."""
    steps: list[bool] = []

    async def target(worker: Worker) -> None:
        steps.append(worker.stopping.is_set())
        await anyio.sleep_forever()

    runtime = make_async(directory, ear, backend, target)
    runtime.stop(False)
    runtime.run()

    assert steps == [True]
    runtime.stop(True)  # after its end it means nothing


@both
def test_loop_sends_heartbeats(directory: Path, ear: Ear, backend: str) -> None:
    heard: list[str] = []

    async def target(worker: Worker) -> None:
        heard.extend([await anyio.to_thread.run_sync(ear.next) for _ in range(3)])

    make_async(directory, ear, backend, target, heartbeat=0.01).run()

    assert heard == ["WATCHDOG=1"] * 3


@both
def test_no_heartbeats_without_health_check(
    directory: Path, ear: Ear, backend: str
) -> None:
    async def target(worker: Worker) -> None:
        await anyio.wait_all_tasks_blocked()

    make_async(directory, ear, backend, target, heartbeat=None).run()

    assert ear.rest() == []


@pytest.fixture
def stop_handler() -> Iterator[list[SyncRuntime]]:
    """A SIGTERM handler like the worker's, for the runtime that is put into it."""
    runtimes: list[SyncRuntime] = []

    def handle(*_: object) -> None:
        for runtime in runtimes:
            runtime.handle_signal()

    before = signal.signal(signal.SIGTERM, handle)
    yield runtimes
    signal.signal(signal.SIGTERM, before)


def run_sync(
    directory: Path,
    ear: Ear,
    runtimes: list[SyncRuntime],
    target: Callable[[SyncWorker], object],
    act: Callable[[SyncRuntime], None],
) -> None:
    """Run a blocking *target*; *act* comes from another thread once it is ready."""
    runtime = SyncRuntime(
        SyncWorker._create(make_boot(directory), ear.notifier), target
    )
    runtimes.append(runtime)
    with once_ready(ear, lambda: act(runtime)):
        runtime.run()


def test_sync_target_that_ignores_stopping_is_interrupted(
    directory: Path, ear: Ear, stop_handler: list[SyncRuntime]
) -> None:
    """Within its call, by a SystemExit; its finally blocks run."""
    steps: list[str] = []

    def target(worker: SyncWorker) -> None:
        try:
            worker.ready()
            time.sleep(1000)
        finally:
            steps.append("cleaned up")

    with pytest.raises(SystemExit) as caught:
        run_sync(directory, ear, stop_handler, target, lambda r: r.stop(False))

    assert (caught.value.code, steps) == (0, ["cleaned up"])


def test_cleanup_of_sync_target_is_not_interrupted(
    directory: Path, ear: Ear, stop_handler: list[SyncRuntime]
) -> None:
    steps: list[str] = []

    def target(worker: SyncWorker) -> None:
        try:
            worker.ready()
            time.sleep(1000)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("cleaned up")

    with pytest.raises(SystemExit):
        run_sync(directory, ear, stop_handler, target, lambda r: r.stop(False))

    assert steps == ["cleaned up"]


def test_sync_target_that_checks_stopping_is_trusted(
    directory: Path, ear: Ear, stop_handler: list[SyncRuntime]
) -> None:
    steps: list[str] = []

    def target(worker: SyncWorker) -> None:
        stopping = worker.stopping
        worker.ready()
        while not stopping.wait(1000):
            pass
        os.kill(os.getpid(), signal.SIGTERM)  # a signal more is no reason to hurry
        steps.append("ended by itself")

    run_sync(directory, ear, stop_handler, target, lambda r: r.stop(False))

    assert steps == ["ended by itself"]


def test_overdue_sync_target_is_interrupted(
    directory: Path, ear: Ear, stop_handler: list[SyncRuntime]
) -> None:
    def target(worker: SyncWorker) -> None:
        stopping = worker.stopping
        worker.ready()
        stopping.wait()
        worker.ready()
        time.sleep(1000)

    def stop_twice(runtime: SyncRuntime) -> None:
        runtime.stop(False)
        while ear.next() != "READY=1":
            pass
        runtime.stop(True)

    with pytest.raises(SystemExit):
        run_sync(directory, ear, stop_handler, target, stop_twice)


def test_signal_before_or_after_target_raises_no_exit(
    directory: Path, ear: Ear
) -> None:
    runtime = SyncRuntime(
        SyncWorker._create(make_boot(directory), ear.notifier), lambda worker: None
    )
    runtime.handle_signal()
    runtime.run()
    runtime.handle_signal()
