"""Answer the health checks of clusters and load balancers over HTTP."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final, Literal, Protocol
from urllib.parse import parse_qs

import orjson
import trio
from attrs import frozen

from trio_supervisor.application import Listen
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.health_text import describe_health
from trio_supervisor.policy.metrics_text import OPEN, PLAIN
from trio_supervisor.process.sockets.sockets import open_sockets
from trio_supervisor.tasks import interrupt_safe
from trio_supervisor.web.http import HttpRequest, HttpResponse, plain, serve_http

HealthKind = Literal["liveness", "readiness", "startup"]
"""Kubernetes' probes: whether to restart us, to send us requests, to wait for us."""

# The paths that Kubernetes' own servers have.
PATHS: Final[Mapping[str, HealthKind]] = {
    "/livez": "liveness",
    "/readyz": "readiness",
    "/startupz": "startup",
}
METRICS: Final = "/metrics"
"""Where Prometheus scrapes: with ``?per_worker`` of each worker."""
_METHODS: Final = ("GET", "HEAD")
# Workers that an answer lists: of a thousand, ten show what is wrong with the others.
_MAX_LISTED: Final = 10


class HealthSource(Protocol):
    """The object that is asked for the health of the application."""

    def report(self, kind: HealthKind) -> tuple[bool, Mapping[str, object]]:
        """Return whether the check succeeds, and details as JSON values.

        Does not block.
        """
        ...

    async def metrics(self, *, per_worker: bool, openmetrics: bool) -> str:
        """Return all metrics as text."""
        ...


@frozen
class _HealthHandler:
    """The handler of `PATHS`: answers 200 or 503, with ``?verbose`` as JSON."""

    source: HealthSource

    def __call__(self, request: HttpRequest) -> HttpResponse | Awaitable[HttpResponse]:
        kind = PATHS.get(request.path)
        if kind is None and request.path != METRICS:
            paths = ", ".join((*PATHS, METRICS))
            return plain(HTTPStatus.NOT_FOUND, f"not found; the paths are {paths}")
        if request.method not in _METHODS:
            allowed = ", ".join(_METHODS)
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": allowed})
        if kind is None:
            return self._metrics(request)
        is_ok, details = self.source.report(kind)
        status = HTTPStatus.OK if is_ok else HTTPStatus.SERVICE_UNAVAILABLE
        if "verbose" not in parse_qs(request.query, keep_blank_values=True):
            return plain(status, describe_health(is_ok, details, limit=_MAX_LISTED))
        body = orjson.dumps(
            {"ok": is_ok, **details}, default=str, option=orjson.OPT_INDENT_2
        )
        return HttpResponse(
            status=status, body=body + b"\n", content_type="application/json"
        )

    async def _metrics(self, request: HttpRequest) -> HttpResponse:
        query = parse_qs(request.query, keep_blank_values=True)
        is_open = OPEN.partition(";")[0] in request.accept
        text = await self.source.metrics(
            per_worker="per_worker" in query, openmetrics=is_open
        )
        return HttpResponse(
            status=HTTPStatus.OK,
            body=text.encode(),
            content_type=OPEN if is_open else PLAIN,
        )


def parse_http_address(text: str) -> Listen:
    """Return the address in ``HOST:PORT``, ``:PORT``, ``[IPv6]:PORT`` or ``unix:PATH``.

    Raises:
        SpecError: *text* is none of these.
    """
    kind, _, path = text.partition(":")
    url = f"unix://{path}" if kind == "unix" else f"tcp://{text}"
    try:
        return Listen(url)
    except SpecError as exc:
        raise SpecError(
            "http",
            f"expected HOST:PORT, :PORT, [IPv6]:PORT or unix:PATH, got {text!r}",
        ) from exc


@interrupt_safe
@asynccontextmanager
async def open_http_listener(
    address: str,
) -> AsyncIterator[tuple[trio.SocketListener, str]]:
    """Listen at *address* within the block; yield the listener and its actual address.

    Raises:
        SpecError: *address* is invalid.
        ListenError: the address is in use or cannot be bound; the message says why.
    """
    async with open_sockets({"http": parse_http_address(address)}) as sockets:
        [descriptor] = sockets.descriptors(["http"], 0).values()
        sock = trio.socket.from_stdlib_socket(socket.socket(fileno=os.dup(descriptor)))
        async with trio.SocketListener(sock) as listener:
            yield listener, sockets.addresses["http"]


async def serve_health(
    source: HealthSource, listeners: Sequence[trio.SocketListener]
) -> None:
    """Answer health checks until cancelled; then close connections and *listeners*."""
    await serve_http(_HealthHandler(source), listeners)
