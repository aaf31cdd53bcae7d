"""Run the same work under trio, under asyncio, and as a blocking function."""

import asyncio

import trio

from trio_supervisor import Application, Service, SyncWorker, Worker


async def trio_work(worker: Worker) -> None:
    """Work until cancelled: this target never uses ``stopping``."""
    await worker.ready()
    jobs = 0
    try:
        while True:
            await trio.sleep(1)
            jobs += 1
            await worker.status(f"{jobs} jobs done")
    finally:
        print(f"{worker.name}: cancelled after {jobs} jobs", flush=True)


async def asyncio_work(worker: Worker) -> None:
    """Work until ``stopping`` is set: finish the current job, then return."""
    await worker.ready()
    jobs = 0
    while not worker.stopping.is_set():
        await asyncio.sleep(0.1)
        jobs += 1
    print(f"{worker.name}: finished after {jobs} jobs", flush=True)


def sync_work(worker: SyncWorker) -> None:
    """Work until asked to stop: ``stopping.wait`` also sends the heartbeats."""
    worker.ready()
    jobs = 0
    while not worker.stopping.wait(1):
        jobs += 1
        worker.status(f"{jobs} jobs done")
    print(f"{worker.name}: finished after {jobs} jobs", flush=True)


application = Application(
    name="backends",
    services=[
        Service("trio", trio_work, count=2),
        Service("asyncio", asyncio_work, backend="asyncio"),
        Service("sync", sync_work, backend="sync"),
    ],
)
