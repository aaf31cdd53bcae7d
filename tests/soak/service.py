"""Workers under a steady load, beside all else that a service file may declare.

It is copied beside the file ``done`` and served from there.
"""

import trio

from tests.chaos.service import serve
from trio_supervisor import (
    Application,
    Command,
    Counter,
    Listen,
    MemoryMonitor,
    Metrics,
    Schedule,
    Service,
    Worker,
)


async def callable_worker(worker: Worker) -> None:
    """Answer calls, and print lines for a log that is rotated."""

    def echo(text: str) -> str:
        worker.metrics.calls_total.inc()
        print(text)
        return text

    worker.handle("echo", echo)
    await worker.ready()
    await worker.stopping.wait()


async def on_demand(worker: Worker) -> None:
    """Answer one line for each connection."""
    inherited = trio.socket.from_stdlib_socket(worker.sockets["demand"])

    async def greet(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"hello\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            trio.serve_listeners, greet, [trio.SocketListener(inherited)]
        )
        await worker.ready()
        await worker.stopping.wait()
        nursery.cancel_scope.cancel()


application = Application(
    [
        Service(
            "jobs",
            serve,
            count=4,
            sockets={"jobs": Listen("unix://jobs.sock", backlog=512)},
            stop_timeout=5,
        ),
        Service(
            "calls",
            callable_worker,
            count=2,
            metrics=Metrics(calls_total=Counter("Calls that were answered.")),
            log_file="calls.log",
            log_max_size="20 kB",
            log_keep=2,
        ),
        Service(
            "demand",
            on_demand,
            sockets={"demand": Listen("unix://demand.sock")},
            on_demand=True,
            idle_timeout=1,
        ),
        Command("other", ["sleep", "100000"]),
        Schedule("tick", ["true"], every=2),
    ],
    monitors=[MemoryMonitor(interval=5)],
)
