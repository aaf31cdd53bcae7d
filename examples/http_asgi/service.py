"""Serve an unmodified ASGI application with uvicorn on an inherited socket.

This example needs ``pip install uvicorn``.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from asgi_app import app  # type: ignore[import-not-found]

from trio_supervisor import Application, Listen, Service, Worker

# How long clients may keep an idle connection once the worker stops [s]. A request in
# that time is answered with "Connection: close"; other connections are then closed.
LINGER = 1.0


class LastAnswers:
    """A wrapper of *app* that adds ``Connection: close`` to answers while closing."""

    def __init__(self, app: Any) -> None:
        self.is_closing = False
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one ASGI connection."""

        async def send_on(message: Any) -> None:
            if self.is_closing and message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_on)


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the worker and reports readiness."""

    def __init__(self, config: uvicorn.Config, worker: Worker) -> None:
        super().__init__(config)
        self._worker = worker

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no handlers: the worker sets ``worker.stopping`` on SIGTERM."""
        yield

    async def startup(self, sockets: Any = None) -> None:
        """Start accepting, then report readiness."""
        await super().startup(sockets)
        await self._worker.ready()


async def serve(worker: Worker) -> None:
    """Serve until asked to stop; then stop accepting and answer what was accepted.

    When uvicorn is asked to exit, it immediately closes connections on which no request
    has arrived yet. So it is asked only after they had time to send one.
    """
    web = LastAnswers(app)
    server = Server(uvicorn.Config(web, log_config=None), worker)
    # Bound by the controller and shared by all workers of all generations.
    inherited = worker.sockets["http"]
    host, port = inherited.getsockname()[:2]
    await worker.status(f"http://{host}:{port}/")
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[inherited]))
        await worker.stopping.wait()
        # From now on other workers accept. Not `Server.close`: with it, asyncio drops
        # connections that it has just accepted.
        asyncio.get_running_loop().remove_reader(inherited)
        web.is_closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                # uvicorn counts a new connection only a moment after accepting it.
                await asyncio.sleep(0.05)
                while server.server_state.connections:
                    await asyncio.sleep(0.01)
        # Closes idle connections; running requests have until `stop_timeout`.
        server.should_exit = True


application = Application(
    name="http_asgi",
    services=[
        Service(
            "web",
            serve,
            backend="asyncio",
            count=2,
            sockets={"http": Listen(f"tcp://127.0.0.1:{os.environ.get('PORT', 8000)}")},
        )
    ],
)
