"""What `Worker` and `SyncWorker` say, and how they are told to end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from tests.kits.serving import short_directory
from tests.kits.worker import Ear, make_boot, open_ear
from trio_supervisor import Stopping, SyncWorker, Worker


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


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_async_worker_speaks_sd_notify(directory: Path, ear: Ear, backend: str) -> None:
    async def main() -> None:
        worker = Worker._create(make_boot(directory), ear.notifier)
        await worker.ready()
        await worker.status("two\nlines\r\nof text")
        await worker.status("")
        await worker.healthy()
        await worker.request_restart("two\nlines")

    anyio.run(main, backend=backend)

    assert ear.rest() == [
        "READY=1",
        "STATUS=two lines of text",
        "STATUS=",
        "WATCHDOG=1",
        "RESTART=two lines",
    ]


def test_sync_worker_speaks_sd_notify(directory: Path, ear: Ear) -> None:
    worker = SyncWorker._create(make_boot(directory), ear.notifier)
    worker.ready()
    worker.status("two\nlines")
    worker.healthy()
    worker.request_restart()

    assert ear.rest() == ["READY=1", "STATUS=two lines", "WATCHDOG=1", "RESTART="]


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_notifications_are_checkpoints(directory: Path, ear: Ear, backend: str) -> None:
    """A loop that does nothing else can still be cancelled."""

    async def main() -> None:
        worker = Worker._create(make_boot(directory), ear.notifier)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await worker.healthy()
            raise AssertionError("it was not cancelled")

    anyio.run(main, backend=backend)
    assert ear.rest() == []


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_notification_waits_for_full_socket(
    directory: Path, ear: Ear, backend: str
) -> None:
    """The receiver's queue is full; nothing is lost, and the loop turns meanwhile."""
    count = 0
    while ear.notifier.send(f"STATUS={count}"):
        count += 1

    async def main() -> None:
        worker = Worker._create(make_boot(directory), ear.notifier)
        async with anyio.create_task_group() as group:
            group.start_soon(worker.ready)
            await anyio.wait_all_tasks_blocked()
            heard.extend(ear.rest())

    heard: list[str] = []
    anyio.run(main, backend=backend)

    heard += ear.rest()
    assert heard == [*(f"STATUS={number}" for number in range(count)), "READY=1"]


def test_sync_notification_waits_for_full_socket(directory: Path, ear: Ear) -> None:
    worker = SyncWorker._create(make_boot(directory), ear.notifier)
    while ear.notifier.send("STATUS=noise"):
        pass
    thread = threading.Thread(target=worker.ready)
    thread.start()

    heard = ""
    while heard != "READY=1":
        heard = ear.next()

    thread.join()


async def test_worker_knows_its_identity(directory: Path, ear: Ear) -> None:
    boot = make_boot(directory)
    for worker in (
        Worker._create(boot, ear.notifier),
        SyncWorker._create(boot, ear.notifier),
    ):
        assert (worker.name, worker.service, worker.index) == ("web.3", "web", 3)
        assert worker.incarnation == 2
        assert repr(worker) == f"<{type(worker).__name__} web.3 incarnation 2>"
        worker.state["more"] = 1
        assert worker.state == {"role": "tester", "more": 1}
    assert boot.state == {"role": "tester"}


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_stopping_can_be_polled_and_waited_for(backend: str) -> None:
    async def main() -> None:
        stopping = Stopping()
        assert not stopping.is_set()
        async with anyio.create_task_group() as group:
            group.start_soon(stopping.wait)
            await anyio.wait_all_tasks_blocked()
            stopping._set()
        assert stopping.is_set()
        await stopping.wait()

    anyio.run(main, backend=backend)


async def test_reading_stopping_is_noticed(directory: Path, ear: Ear) -> None:
    worker = Worker._create(make_boot(directory), ear.notifier)
    assert not worker._stopping.is_noticed

    assert not worker.stopping.is_set()

    assert worker._stopping.is_noticed


def test_checking_sync_stopping_sends_heartbeat(directory: Path, ear: Ear) -> None:
    """Of a sync worker; however often it looks, not more than are needed."""
    worker = SyncWorker._create(make_boot(directory, heartbeat=1000.0), ear.notifier)
    assert not worker._stopping.is_noticed

    for _ in range(1000):
        assert not worker.stopping.is_set()

    assert ear.rest() == ["WATCHDOG=1"]
    assert worker._stopping.is_noticed


def test_sync_stopping_wait_sends_heartbeats(directory: Path, ear: Ear) -> None:
    worker = SyncWorker._create(make_boot(directory, heartbeat=0.01), ear.notifier)
    outcome: list[bool] = []
    thread = threading.Thread(target=lambda: outcome.append(worker.stopping.wait()))
    thread.start()

    assert [ear.next() for _ in range(5)] == ["WATCHDOG=1"] * 5
    worker._stopping._set()
    thread.join()

    assert outcome == [True]


def test_sync_stopping_wait_ends_at_timeout(directory: Path, ear: Ear) -> None:
    worker = SyncWorker._create(make_boot(directory, heartbeat=0.01), ear.notifier)
    began = time.monotonic()

    assert worker.stopping.wait(0.05) is False
    assert 0.05 <= time.monotonic() - began < 5
    assert worker.stopping.wait(0) is False
    worker._stopping._set()
    assert worker.stopping.wait(1000) is True
    assert worker.stopping.wait(0) is True
