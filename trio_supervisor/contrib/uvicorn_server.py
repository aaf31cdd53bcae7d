"""Serve with uvicorn on inherited sockets, under asyncio."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import uvicorn

from trio_supervisor.contrib.serving import Serving

# uvicorn counts a new connection only a moment after accepting it [s].
_UNCOUNTED: Final = 0.05
_POLL: Final = 0.01


# Set here, or of no effect with inherited sockets.
_OURS: Final = {
    *("self", "app", "host", "port", "uds", "fd", "loop", "workers", "reload"),
    *("lifespan", "backlog", "timeout_graceful_shutdown", "interface"),
    *("limit_max_requests", "limit_max_requests_jitter"),
}
OPTIONS: Final = frozenset(inspect.signature(uvicorn.Config).parameters) - _OURS
"""Options of `uvicorn.Config` that a service may give."""


class UvicornServer(uvicorn.Server):
    """A uvicorn server that leaves signals to the worker and reports its start."""

    def __init__(self, config: uvicorn.Config, serving: Serving) -> None:
        super().__init__(config)
        self._serving = serving

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no handlers: the worker sets ``worker.stopping`` on SIGTERM."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start accepting, then report readiness."""
        await super().startup(sockets)
        await self._serving.started()


def make_config(serving: Serving) -> uvicorn.Config:
    """Return uvicorn's configuration."""
    own: dict[str, Any] = {
        "log_config": None,  # the worker's own logging
        "access_log": False,
        **serving.server_options,
        "lifespan": "off",  # `open_lifespan` runs it
        "backlog": serving.backlog,
        "timeout_graceful_shutdown": serving.times.grace,
    }
    return uvicorn.Config(serving.traffic, **own)


async def serve(serving: Serving) -> None:
    """Serve until asked to stop; then stop accepting and answer what was accepted.

    When uvicorn is asked to exit, it immediately closes connections on which no request
    has arrived yet. So it is asked only after they had time to send one.
    """
    server = UvicornServer(make_config(serving), serving)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=list(serving.sockets)))
        await serving.until_stop()
        # From now on other workers accept. Not `Server.close`: with it, asyncio drops
        # connections that it has just accepted.
        for each in serving.sockets:
            asyncio.get_running_loop().remove_reader(each)
        serving.traffic.is_draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(serving.times.linger):
                await asyncio.sleep(_UNCOUNTED)
                while server.server_state.connections:  # noqa: ASYNC110 (no event)
                    await asyncio.sleep(_POLL)
        # Closes idle connections, and waits for requests in flight.
        server.should_exit = True
