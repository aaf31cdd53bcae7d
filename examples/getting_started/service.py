import trio

from trio_supervisor import Application, MemoryMonitor, Service, Worker


async def work(worker: Worker) -> None:
    await worker.ready()
    while True:
        await trio.sleep(1)


application = Application(
    services=[Service("worker", work, count=4)],
    monitors=[MemoryMonitor(interval=10, maximum_size_limit=500 * 1024 * 1024)],
)
