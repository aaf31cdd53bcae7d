"""An unmodified ASGI application under uvicorn, on asyncio and an inherited socket.

For this example alone: ``pip install uvicorn``.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from asgi_app import app  # type: ignore[import-not-found]

from trio_supervisor import Application, Listen, Service, Worker

# Clients that keep their connection have so long to ask once more, and so to hear that
# it is closed; those that do not ask are hung up on [s].
LINGER = 1.0


class LastAnswers:
    """Passes on to *app*; once it is closing, clients are told to leave."""

    def __init__(self, app: Any) -> None:
        self.is_closing = False
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Be the application."""

        async def send_on(message: Any) -> None:
            if self.is_closing and message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_on)


class Server(uvicorn.Server):
    """Leaves signals to the worker, and says when it serves."""

    def __init__(self, config: uvicorn.Config, worker: Worker) -> None:
        super().__init__(config)
        self._worker = worker

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave SIGTERM alone: it sets ``worker.stopping``."""
        yield

    async def startup(self, sockets: Any = None) -> None:
        """Start to accept."""
        await super().startup(sockets)
        await self._worker.ready()


async def serve(worker: Worker) -> None:
    """Serve until the worker is to end; then answer what has come, and accept no more.

    uvicorn that is told to end hangs up at once on connections over which no request
    has come yet. So it is told a little later.
    """
    web = LastAnswers(app)
    server = Server(uvicorn.Config(web, log_config=None), worker)
    # Bound by the controller, and shared with all other workers of all generations.
    inherited = worker.sockets["http"]
    host, port = inherited.getsockname()[:2]
    await worker.status(f"http://{host}:{port}/")
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[inherited]))
        await worker.stopping.wait()
        # The others accept from now on. Not `Server.close`, by which
        # asyncio would drop connections that it has accepted a moment ago.
        asyncio.get_running_loop().remove_reader(inherited)
        web.is_closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                # One that was just accepted is counted a moment later.
                await asyncio.sleep(0.05)
                while server.server_state.connections:
                    await asyncio.sleep(0.01)
        # Hangs up where no request is under way; what is has until `stop_timeout`.
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
