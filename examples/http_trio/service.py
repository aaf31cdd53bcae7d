"""HTTP by hypercorn on trio: no connection is refused or reset while workers change.

For this example alone: ``pip install "hypercorn[trio]"``.
"""

import os
from collections.abc import MutableMapping
from functools import partial
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from trio_supervisor import Application, Listen, Service, Worker

# Clients that keep their connection have so long to ask once more, and so to hear that
# it is closed; those that do not ask are hung up on [s].
LINGER = 1.0


class Web:
    """An ASGI application, which tells clients to leave once it is to end."""

    is_closing = False

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        """Say which process answers, after 0.2 s if asked for ``/slow``."""
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        if scope["path"] == "/slow":
            await trio.sleep(0.2)
        body = f"pid {os.getpid()}\n".encode()
        headers = [(b"content-length", str(len(body)).encode())]
        if self.is_closing:
            headers.append((b"connection", b"close"))
        start: MutableMapping[str, Any] = {"type": "http.response.start"}
        await send({**start, "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def serve(worker: Worker) -> None:
    """Serve until the worker is to end; then answer what has come, and accept no more.

    hypercorn's own ``serve`` accepts by itself, and when it is told to end hangs up at
    once on connections over which no request has come yet. So we do the accepting.
    """
    web = Web()
    context = WorkerContext(None)
    state = ConnectionState({})
    handle = partial(TCPServer, ASGIWrapper(web), Config(), context, state)
    # Bound by the controller, and shared with all other workers of all generations.
    inherited = trio.socket.from_stdlib_socket(worker.sockets["http"])
    listener = trio.SocketListener(inherited)
    host, port = inherited.getsockname()[:2]

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(
                partial(
                    trio.serve_listeners,
                    handle,
                    [listener],
                    handler_nursery=connections,
                )
            )
            await worker.ready()
            await worker.status(f"http://{host}:{port}/")
            await worker.stopping.wait()
            accepting.cancel_scope.cancel()
        # Who connects from now on is accepted by the others.
        web.is_closing = True
        with trio.move_on_after(LINGER):
            while connections.child_tasks:
                await trio.sleep(0.01)
        # Hangs up where no request is under way; what is has until `stop_timeout`.
        await context.terminated.set()


application = Application(
    name="http_trio",
    services=[
        Service(
            "web",
            serve,
            count=2,
            sockets={"http": Listen(f"tcp://127.0.0.1:{os.environ.get('PORT', 8000)}")},
        )
    ],
)
