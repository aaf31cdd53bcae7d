"""Serve HTTP with hypercorn on trio, without losing connections on restarts.

This example needs ``pip install "hypercorn[trio]"``.
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

# How long clients may keep an idle connection once the worker stops [s]. A request in
# that time is answered with "Connection: close"; other connections are then closed.
LINGER = 1.0


class Web:
    """An ASGI application that answers with ``Connection: close`` while closing."""

    is_closing = False

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        """Answer with the id of this process, after 0.2 s for ``/slow``."""
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
    """Serve until asked to stop; then stop accepting and answer what was accepted.

    When hypercorn's own ``serve`` is asked to exit, it immediately closes connections
    on which no request has arrived yet. So this function accepts them itself.
    """
    web = Web()
    context = WorkerContext(None)
    state = ConnectionState({})
    handle = partial(TCPServer, ASGIWrapper(web), Config(), context, state)
    # Bound by the controller and shared by all workers of all generations.
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
        # From now on other workers accept new connections.
        web.is_closing = True
        with trio.move_on_after(LINGER):
            while connections.child_tasks:
                await trio.sleep(0.01)
        # Closes idle connections; running requests have until `stop_timeout`.
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
