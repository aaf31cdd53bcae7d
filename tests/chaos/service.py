"""Workers that take jobs over a socket, and acknowledge each after it is on disk.

It is copied beside the file ``done`` and served from there.
"""

import os
from functools import partial

import trio

from trio_supervisor import Application, Command, Listen, Service, Worker

COUNT = 50


async def answer(done: int, stream: trio.SocketStream) -> None:
    """Take jobs, one in a line, until the client hangs up."""
    rest = b""
    async with stream:
        while data := await stream.receive_some():
            *jobs, rest = (rest + data).split(b"\n")
            for job in jobs:
                os.write(done, job + b"\n")
                await stream.send_all(b"done " + job + b"\n")


async def serve(worker: Worker) -> None:
    """Serve until asked to stop; then end the jobs that were accepted."""
    done = os.open("done", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    inherited = trio.socket.from_stdlib_socket(worker.sockets["jobs"])
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(
                partial(
                    trio.serve_listeners,
                    partial(answer, done),
                    [trio.SocketListener(inherited)],
                    handler_nursery=connections,
                )
            )
            await worker.ready()
            await worker.stopping.wait()
            accepting.cancel_scope.cancel()
        with trio.move_on_after(0.5):
            await trio.sleep_forever()
        connections.cancel_scope.cancel()


application = Application(
    [
        Service(
            "jobs",
            serve,
            count=COUNT,
            sockets={"jobs": Listen("unix://jobs.sock", backlog=512)},
            stop_timeout=5,
        ),
        Command("other", ["sleep", "100000"], count=2),
    ]
)
