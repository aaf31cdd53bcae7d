"""What a server needs from its worker, and reports to it."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
from attrs import frozen

from trio_supervisor.application import Listen
from trio_supervisor.application.listen import join_host_and_port
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
    listens: Sequence[Listen]
    """How each of them is declared."""
    times: DrainTimes
    server_options: Mapping[str, Any]
    limit: int | None = None
    """Number of requests after which the worker is replaced; None: no limit."""

    @property
    def backlog(self) -> int:
        """Maximum number of connections that wait at one socket."""
        return min(each.backlog for each in self.listens)

    async def started(self) -> None:
        """Report that the server accepts connections."""
        scheme = "https" if "ssl_certfile" in self.server_options else "http"
        pairs = zip(self.sockets, self.listens, strict=True)
        urls = [url_of(*pair, scheme) for pair in pairs]
        await self.worker.status(" ".join(urls))
        await self.worker.ready()

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


def url_of(listening: socket.socket, listen: Listen, scheme: str = "http") -> str:
    """Return the URL of a socket, with the port that it really has."""
    if listen.kind == "unix":
        return listen.url  # it was bound by another name, and renamed
    host, port = listening.getsockname()[:2]
    return f"{scheme}://{join_host_and_port(host, port)}/"
