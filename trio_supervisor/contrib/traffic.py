"""Wrap an ASGI application: count its requests, and close connections in a drain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

import anyio
from attrs import define, field

from trio_supervisor.contrib.web_metrics import RequestCounts

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


@define(eq=False)
class Traffic:
    """An ASGI application between a server and the application of a service."""

    _app: AsgiApp
    _counts: RequestCounts
    _limit: int | None = None
    """Number of requests after which `is_exhausted` is set; None: no limit."""
    state: Mapping[str, Any] = field(factory=dict)
    """What the lifespan of the application has put into ``scope["state"]``."""
    is_draining: bool = field(default=False, init=False)
    """Whether answers ask clients to close their connections."""
    is_exhausted: anyio.Event = field(factory=anyio.Event, init=False)
    """Set when the limit is reached."""
    _requests: int = field(default=0, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or one WebSocket."""
        scope["state"] = dict(self.state)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._requests += 1
        if self._limit is not None and self._requests >= self._limit:
            self.is_exhausted.set()
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        # HTTP/2 has no Connection header; RFC 9113, 8.2.2.
        has_header = str(scope.get("http_version", "1.1")).startswith("1")
        request = self._counts.begin(scope["method"])

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                if self.is_draining and has_header:
                    message = _closing(message)
            await send(message)
            is_body = message["type"] == "http.response.body"
            if is_body and not message.get("more_body", False):
                request.end()

        try:
            await self._app(scope, receive, send_on)
        except Exception:
            if request.status is None:
                request.status = 500  # which the server answers
            raise
        finally:
            request.end()


def _closing(start: Message) -> Message:
    """Return the beginning of an answer, with ``Connection: close``."""
    headers = [
        (name, value)
        for name, value in start.get("headers", ())
        if bytes(name).lower() != b"connection"
    ]
    return {**start, "headers": [*headers, (b"connection", b"close")]}
