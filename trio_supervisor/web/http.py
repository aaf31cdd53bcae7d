"""A small HTTP/1.1 server for short responses, safe against slow and hostile clients.

It runs in the event loop of the controller: handlers do not block, requests with a body
are not read, and time, size and number of connections are limited. h11 implements the
protocol.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import h11
import trio
from attrs import define, field, frozen

from trio_supervisor.process.sockets.accept import accept_all

logger = logging.getLogger(__name__)

# Request line and headers [bytes]; a probe sends one or two hundred.
MAX_HEADER: Final = 8192
MAX_CONNECTIONS: Final = 64
# From the connection or the last response to the end of the next request [s].
TIME_TO_REQUEST: Final = 5.0
# For the client to read a response [s].
_TIME_TO_READ: Final = 5.0
# For the client to close the connection after an error: see `_close` [s], [bytes].
_TIME_TO_CLOSE: Final = 1.0
_MAX_UNREAD: Final = 65_536
_CHUNK: Final = 4096


@frozen(kw_only=True)
class HttpRequest:
    """A request without its headers."""

    method: str
    path: str
    query: str
    accept: str = ""
    """Formats that the client accepts."""


@frozen(kw_only=True)
class HttpResponse:
    """A response; its body is not sent in answer to HEAD."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(factory=dict)


HttpHandler = Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]]
"""Returns a response without blocking; an exception is logged and leads to a 500."""


def plain(
    status: HTTPStatus, text: str = "", headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """Return a response of one line of text."""
    text = text or status.phrase.lower()
    return HttpResponse(status=status, body=f"{text}\n".encode(), headers=headers or {})


async def serve_http(
    handler: HttpHandler, listeners: Sequence[trio.SocketListener]
) -> None:
    """Answer requests until cancelled; then close all connections and *listeners*.

    At `MAX_CONNECTIONS`, a new connection closes the least recently used one.
    """
    serve = _HttpServer(handler).serve
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(accept_all, listener, serve, nursery, "health checks")


@define(eq=False)
class _HttpServer:
    handler: HttpHandler
    _connections: list[trio.CancelScope] = field(factory=list, init=False)
    """Ordered by their last request, the most recent at the end."""

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end."""
        with trio.CancelScope() as scope:
            if len(self._connections) >= MAX_CONNECTIONS:
                self._connections.pop(0).cancel()
            self._connections.append(scope)
            connection = _HttpConnection(stream)
            try:
                while (request := await connection.receive()) is not None:
                    if scope in self._connections:
                        self._connections.remove(scope)
                        self._connections.append(scope)
                    await connection.send(request, await self._respond(request))
            except trio.BrokenResourceError:
                pass  # the client closed the connection
            finally:
                if scope in self._connections:
                    self._connections.remove(scope)
                await trio.aclose_forcefully(stream)

    async def _respond(self, request: h11.Request) -> HttpResponse:
        if (parsed := _parse(request)) is None:
            return plain(HTTPStatus.BAD_REQUEST)
        try:
            response = self.handler(parsed)
            if isinstance(response, HttpResponse):
                return response
            return await response
        except Exception:
            # A bug in a handler must not end the controller.
            logger.exception(
                "error while answering %s %s; responding 500",
                parsed.method,
                parsed.path,
            )
            return plain(HTTPStatus.INTERNAL_SERVER_ERROR)


def _parse(request: h11.Request) -> HttpRequest | None:
    target = request.target.decode("ascii")
    if target.startswith("/"):
        path, _, query = target.partition("?")
    else:
        try:
            _, _, path, query, _ = urlsplit(target)  # absolute form, as sent to proxies
        except ValueError:
            return None
    accepted = [value for name, value in request.headers if name == b"accept"]
    return HttpRequest(
        method=request.method.decode("ascii"),
        path=path,
        query=query,
        accept=b",".join(accepted).decode("latin-1"),
    )


def _check_framing(request: h11.Request, head: bytes) -> None:
    """Refuse a request whose end a proxy in front of us may see at another byte.

    RFC 9112: both lengths at once, or Transfer-Encoding in HTTP/1.0, may be an attempt
    at request smuggling (6.1); so may a header folded over several lines (5.2).

    Raises:
        h11.RemoteProtocolError: the request is of this kind.
    """
    if b"\n " in head or b"\n\t" in head:
        raise h11.RemoteProtocolError("a header folded over several lines")
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" not in names:
        return
    if b"content-length" in names:
        raise h11.RemoteProtocolError("Content-Length with Transfer-Encoding")
    if request.http_version != b"1.1":
        raise h11.RemoteProtocolError("Transfer-Encoding in HTTP/1.0")


@define(eq=False)
class _HttpConnection:
    """The connection of one client; closed after an error."""

    _stream: trio.SocketStream
    _http: h11.Connection = field(init=False)
    _received: bytes = field(default=b"", init=False)
    """Bytes of the next request received so far."""

    def __attrs_post_init__(self) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER)

    async def receive(self) -> h11.Request | None:
        """Return the next request; None at the end of the connection."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        elif self._http.our_state is not h11.IDLE:
            await self._close()  # an error, a body, "Connection: close"
            return None
        try:
            with trio.move_on_after(TIME_TO_REQUEST):
                return await self._receive()
        except h11.RemoteProtocolError as exc:
            await self._refuse(HTTPStatus(exc.error_status_hint))
            return None
        if self._http.trailing_data[0]:
            await self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        return None

    async def _receive(self) -> h11.Request | None:
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                left = self._http.trailing_data[0]
                head = self._received[: len(self._received) - len(left)]
                self._received = left
                _check_framing(event, head)
                # Either the end of the request, or a body, which is not read.
                self._http.next_event()
                return event
            if event is not h11.NEED_DATA:
                return None
            data = await self._stream.receive_some(_CHUNK)
            self._received += data
            self._http.receive_data(data)

    async def send(self, request: h11.Request | None, response: HttpResponse) -> None:
        """Send *response* to *request*; disconnect a client that does not read it.

        Raises:
            trio.BrokenResourceError: the client is gone, or does not read.
        """
        headers = {
            "Date": formatdate(usegmt=True),
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
            # A health check must never be answered from a cache.
            "Cache-Control": "no-store",
            **response.headers,
        }
        if self._http.their_state is not h11.DONE:
            headers["Connection"] = "close"
        head = h11.Response(
            status_code=response.status,
            reason=response.status.phrase,
            headers=list(headers.items()),
        )
        events: list[h11.Event] = [head]
        if request is None or request.method != b"HEAD":
            events.append(h11.Data(data=response.body))
        events.append(h11.EndOfMessage())
        data = b"".join(self._http.send(event) or b"" for event in events)
        with trio.move_on_after(_TIME_TO_READ) as limit:
            await self._stream.send_all(data)
        if limit.cancelled_caught:
            raise trio.BrokenResourceError("the client does not read the response")

    async def _refuse(self, status: HTTPStatus) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self.send(None, plain(status))
        await self._close()

    async def _close(self) -> None:
        """Close so that the client can read the response first.

        Closing a TCP socket with unread input resets the connection, and the response
        may be lost.
        """
        with trio.move_on_after(_TIME_TO_CLOSE):
            await self._stream.send_eof()
            left = _MAX_UNREAD
            while left > 0 and (data := await self._stream.receive_some(_CHUNK)):
                left -= len(data)
