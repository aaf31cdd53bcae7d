"""Targets that run in a test, under both event loops, in a thread, and their ends."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import anyio
import pytest
import trio

from trio_supervisor import (
    BadRequestError,
    OperationFailedError,
    SyncWorker,
    UnknownOperationError,
    Worker,
)
from trio_supervisor.testing import run_sync_worker, run_worker

PATIENCE = 30


def double(number: int) -> int:
    """Return twice *number*."""
    return 2 * number


async def obedient(worker: Worker) -> None:
    """Be ready, answer `double`, and stop when asked."""
    stopping = worker.stopping
    worker.handle("double", double)
    await worker.ready()
    await worker.status(f"{worker.name} of {worker.service}, {worker.state}")
    await worker.healthy()
    await stopping.wait()
    await worker.status("done")
    await worker.request_restart("old")


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_worker_runs_under_both_event_loops(backend: str) -> None:
    async def main() -> None:
        with anyio.fail_after(PATIENCE):
            async with run_worker(obedient, name="web.3", state={"a": 1}) as running:
                await running.wait_ready()
                assert await running.call("double", number=4) == 8
            assert running.status == "done"
            assert running.heartbeats == 1
            assert running.restart_reason == "old"
            assert (running.worker.index, running.worker.service) == (3, "web")

    anyio.run(main, backend=backend)


async def test_worker_that_ignores_stopping_is_cancelled() -> None:
    cancelled: list[bool] = []

    async def stubborn(worker: Worker) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(True)

    with trio.fail_after(PATIENCE):
        async with run_worker(stubborn):
            await trio.testing.wait_all_tasks_blocked()
    assert cancelled == [True]


async def test_worker_reports_that_it_is_unready() -> None:
    async def unsure(worker: Worker) -> None:
        await worker.ready()
        await worker.unready("no database")
        await worker.stopping.wait()

    async with run_worker(unsure) as running:
        await trio.testing.wait_all_tasks_blocked()
        assert (running.is_ready, running.status) == (False, "no database")


async def test_error_of_the_target_comes_out_of_the_block() -> None:
    async def broken(worker: Worker) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        async with run_worker(broken):
            pass


async def test_error_of_the_block_comes_out_alone() -> None:
    with pytest.raises(ValueError, match="the test's"):
        async with run_worker(obedient):
            raise ValueError("the test's")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda r: r.call("nope"), UnknownOperationError),
        (lambda r: r.call("double", number="x"), BadRequestError),
        (lambda r: r.call("socket"), OperationFailedError),
    ],
)
async def test_call_raises_what_the_verb_reports(
    call: Callable[..., Awaitable[object]], error: type[Exception]
) -> None:
    async def target(worker: Worker) -> None:
        worker.handle("socket", lambda: worker)
        await obedient(worker)

    async with run_worker(target) as running:
        await running.wait_ready()
        with pytest.raises(error):
            await call(running)


async def test_worker_gets_its_sockets() -> None:
    with socket.socket() as listening:

        async def target(worker: Worker) -> None:
            assert worker.sockets["web"] is listening
            await worker.ready()

        async with run_worker(target, sockets={"web": listening}) as running:
            await running.wait_ready()


async def test_sync_worker_runs_in_a_thread() -> None:
    def target(worker: SyncWorker) -> None:
        worker.handle("double", double)
        worker.ready()
        worker.status("working")
        while not worker.stopping.wait(60):
            pass

    with trio.fail_after(PATIENCE):
        async with run_sync_worker(target) as running:
            await running.wait_ready()
            assert await running.call("double", number=4) == 8
            assert running.heartbeats >= 0
    assert running.status == "working"


async def test_error_of_a_sync_target_comes_out_of_the_block() -> None:
    def broken(worker: SyncWorker) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        async with run_sync_worker(broken):
            pass


@pytest.mark.parametrize("kind", [Worker, SyncWorker])
def test_worker_is_not_constructed_by_hand(kind: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="has no public constructor"):
        kind()
