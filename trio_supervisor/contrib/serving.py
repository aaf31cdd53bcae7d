"""What a server needs from its worker, and reports to it."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
from attrs import frozen

from trio_supervisor.contrib.drain_times import DrainTimes
from trio_supervisor.contrib.traffic import Traffic
from trio_supervisor.worker.instance import Worker


@frozen(kw_only=True)
class Serving:
    """One run of a server, in one worker."""

    worker: Worker
    traffic: Traffic
    """The application to serve."""
    sockets: Sequence[socket.socket]
    """Bound and listening, and shared with the other workers."""
    backlog: int
    """Maximum number of connections that wait to be accepted."""
    times: DrainTimes
    server_options: Mapping[str, Any]
    limit: int | None = None
    """Number of requests after which the worker is replaced; None: no limit."""

    async def started(self) -> None:
        """Report that the server accepts connections."""
        await self.worker.ready()
        await self.worker.status(" ".join(map(url_of, self.sockets)))

    async def until_stop(self) -> None:
        """Wait for a stop, which the limit of requests leads to; report the drain."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._restart_at_limit)
            await self.worker.stopping.wait()
            group.cancel_scope.cancel()
        await self.worker.unready("draining")

    async def _restart_at_limit(self) -> None:
        """Request a planned restart: its drain is that of any other stop."""
        await self.traffic.is_exhausted.wait()
        await self.worker.request_restart(f"{self.limit} requests (max_requests)")


def url_of(listening: socket.socket) -> str:
    """Return the URL of a socket, with the port that it really has."""
    if listening.family == socket.AF_UNIX:
        return f"unix://{listening.getsockname()}"
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
