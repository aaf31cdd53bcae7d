"""Health over HTTP, as clusters and load balancers ask for it."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final, Literal, Protocol
from urllib.parse import parse_qs

import orjson
import trio
from attrs import frozen

from trio_supervisor.application import Listen
from trio_supervisor.errors import SpecError
from trio_supervisor.process.sockets.sockets import open_sockets
from trio_supervisor.tasks import interrupt_safe
from trio_supervisor.web.http import Answer, Request, plain, serve_http

HealthKind = Literal["liveness", "readiness", "startup"]
"""Kubernetes' words: start us anew; send us work; leave us time."""

# The paths of Kubernetes' own servers.
PATHS: Final[Mapping[str, HealthKind]] = {
    "/livez": "liveness",
    "/readyz": "readiness",
    "/startupz": "startup",
}
_METHODS: Final = ("GET", "HEAD")
# So many of a thousand workers tell what is wrong with the others.
_MOST: Final = 10


class HealthSource(Protocol):
    """Who knows how we are."""

    def report(self, kind: HealthKind) -> tuple[bool, Mapping[str, object]]:
        """Return whether we are well, and what there is to say: JSON values.

        Does not wait.
        """
        ...


@frozen
class _Health:
    """Answers `GET` and `HEAD` of `PATHS`: 200 or 503; with ``?verbose`` as JSON."""

    source: HealthSource

    def __call__(self, request: Request) -> Answer:
        if (kind := PATHS.get(request.path)) is None:
            return plain(HTTPStatus.NOT_FOUND, f"there are {', '.join(PATHS)}")
        if request.method not in _METHODS:
            allowed = ", ".join(_METHODS)
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": allowed})
        is_ok, details = self.source.report(kind)
        status = HTTPStatus.OK if is_ok else HTTPStatus.SERVICE_UNAVAILABLE
        if "verbose" not in parse_qs(request.query, keep_blank_values=True):
            return plain(status, "ok" if is_ok else _summary(details))
        body = orjson.dumps(
            {"ok": is_ok, **details}, default=str, option=orjson.OPT_INDENT_2
        )
        return Answer(status=status, body=body + b"\n", content_type="application/json")


def _summary(details: Mapping[str, object]) -> str:
    """Return ``failing``, and what is not ready, where that is it."""
    names = details.get("not_ready")
    if not isinstance(names, list) or not names:
        return "failing"
    why = details.get("why")
    reasons = why if isinstance(why, Mapping) else {}
    shown = [f"{name} ({reason})" for name, reason in reasons.items()] or names
    more = f" and {len(shown) - _MOST} more" if len(shown) > _MOST else ""
    return f"failing, not ready: {', '.join(map(str, shown[:_MOST]))}{more}"


def parse_http_address(text: str) -> Listen:
    """Return where ``HOST:PORT``, ``:PORT``, ``[IPv6]:PORT`` or ``unix:PATH`` is.

    Raises:
        SpecError: it is none of these.
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
    """Listen at *address* for the length of the block; yield where that really is, too.

    Raises:
        SpecError: *address* is none.
        ListenError: it cannot be listened on; the message says who or what to do.
    """
    async with open_sockets({"http": parse_http_address(address)}) as sockets:
        [descriptor] = sockets.descriptors(["http"], 0).values()
        sock = trio.socket.from_stdlib_socket(socket.socket(fileno=os.dup(descriptor)))
        async with trio.SocketListener(sock) as listener:
            yield listener, sockets.addresses["http"]


async def serve_health(
    source: HealthSource, listeners: Sequence[trio.SocketListener]
) -> None:
    """Answer probes until cancelled; then close all connections and *listeners*."""
    await serve_http(_Health(source), listeners)
