"""A small HTTP/1.1 server for small answers: no client can hold anything up.

For what a cluster and people's tools ask of a supervisor, on the supervisor's own loop:
each answer is at hand, requests have no body, and time, size and number of connections
are limited. The protocol is h11's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import h11
import trio
from attrs import define, field, frozen

from trio_supervisor.process.sockets.accept import accept_all

logger = logging.getLogger(__name__)

# Of a request line and headers [bytes]; a probe's are a hundred or two.
MAX_HEADER: Final = 8192
MAX_CONNECTIONS: Final = 64
# From a connection, or the last answer, to the end of the next request [s].
TIME_TO_REQUEST: Final = 5.0
# To take an answer in; and to hang up after an error, so that it is read at all [s].
_TIME_TO_TAKE: Final = 5.0
_TIME_TO_LEAVE: Final = 1.0
_MAX_LEFTOVERS: Final = 65_536
_CHUNK: Final = 4096


@frozen(kw_only=True)
class Request:
    """What is asked."""

    method: str
    path: str
    query: str


@frozen(kw_only=True)
class Answer:
    """What is said; the body is left out where only its headers were asked for."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(factory=dict)


Handler = Callable[[Request], Answer]
"""Answers without waiting. What it raises is logged, and answered with 500."""


def plain(
    status: HTTPStatus, text: str = "", headers: Mapping[str, str] | None = None
) -> Answer:
    """Return an answer of one line."""
    text = text or status.phrase.lower()
    return Answer(status=status, body=f"{text}\n".encode(), headers=headers or {})


async def serve_http(
    handler: Handler, listeners: Sequence[trio.SocketListener]
) -> None:
    """Answer requests until cancelled; then close all connections and *listeners*.

    Beyond `MAX_CONNECTIONS` the one that has not asked for longest is closed for the
    one that comes.
    """
    serve = _Server(handler).serve
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(accept_all, listener, serve, nursery, "health checks")


@define(eq=False)
class _Server:
    handler: Handler
    _connections: list[trio.CancelScope] = field(factory=list, init=False)
    """The one that asked last at the end."""

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end."""
        with trio.CancelScope() as scope:
            if len(self._connections) >= MAX_CONNECTIONS:
                self._connections.pop(0).cancel()
            self._connections.append(scope)
            connection = _Connection(stream)
            try:
                while (request := await connection.receive()) is not None:
                    if scope in self._connections:
                        self._connections.remove(scope)
                        self._connections.append(scope)
                    await connection.send(request, self._answer(request))
            except trio.BrokenResourceError:
                pass  # it hung up
            finally:
                if scope in self._connections:
                    self._connections.remove(scope)
                await trio.aclose_forcefully(stream)

    def _answer(self, request: h11.Request) -> Answer:
        if (asked := _parse(request)) is None:
            return plain(HTTPStatus.BAD_REQUEST)
        try:
            return self.handler(asked)
        except Exception:
            # One bad answer must not end the supervisor that it is about.
            logger.exception("no answer to %s %s", asked.method, asked.path)
            return plain(HTTPStatus.INTERNAL_SERVER_ERROR)


def _parse(request: h11.Request) -> Request | None:
    target = request.target.decode("ascii")
    if target.startswith("/"):
        path, _, query = target.partition("?")
    else:
        try:
            _, _, path, query, _ = urlsplit(target)  # as proxies are asked
        except ValueError:
            return None
    return Request(method=request.method.decode("ascii"), path=path, query=query)


def _check_framing(request: h11.Request, head: bytes) -> None:
    """Refuse a request whose end a proxy before us may see elsewhere.

    RFC 9112: both lengths at once, or Transfer-Encoding in HTTP/1.0, may be an attempt
    at request smuggling (6.1); so may a header that goes on in a second line (5.2).

    Raises:
        h11.RemoteProtocolError: it is one.
    """
    if b"\n " in head or b"\n\t" in head:
        raise h11.RemoteProtocolError("a header of several lines")
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" not in names:
        return
    if b"content-length" in names:
        raise h11.RemoteProtocolError("Content-Length with Transfer-Encoding")
    if request.http_version != b"1.1":
        raise h11.RemoteProtocolError("Transfer-Encoding in HTTP/1.0")


@define(eq=False)
class _Connection:
    """One client, which is sent away when it misbehaves."""

    _stream: trio.SocketStream
    _http: h11.Connection = field(init=False)
    _received: bytes = field(default=b"", init=False)
    """What was received of the next request so far."""

    def __attrs_post_init__(self) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER)

    async def receive(self) -> h11.Request | None:
        """Return the next request; None: there will be none."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        elif self._http.our_state is not h11.IDLE:
            await self._leave()  # an error, a body, "Connection: close"
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
                # There is its end, or it has a body, which nobody here reads.
                self._http.next_event()
                return event
            if event is not h11.NEED_DATA:
                return None
            data = await self._stream.receive_some(_CHUNK)
            self._received += data
            self._http.receive_data(data)

    async def send(self, request: h11.Request | None, answer: Answer) -> None:
        """Send *answer* to *request*; a client that does not take it is cut off."""
        headers = {
            "Date": formatdate(usegmt=True),
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            # The answer of a moment ago is of no use to anybody.
            "Cache-Control": "no-store",
            **answer.headers,
        }
        if self._http.their_state is not h11.DONE:
            headers["Connection"] = "close"
        response = h11.Response(
            status_code=answer.status,
            reason=answer.status.phrase,
            headers=list(headers.items()),
        )
        events: list[h11.Event] = [response]
        if request is None or request.method != b"HEAD":
            events.append(h11.Data(data=answer.body))
        events.append(h11.EndOfMessage())
        data = b"".join(self._http.send(event) or b"" for event in events)
        with trio.move_on_after(_TIME_TO_TAKE) as limit:
            await self._stream.send_all(data)
        if limit.cancelled_caught:
            raise trio.BrokenResourceError("the client does not read its answer")

    async def _refuse(self, status: HTTPStatus) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self.send(None, plain(status))
        await self._leave()

    async def _leave(self) -> None:
        """Hang up so that the answer is read: closed with input left, it is lost."""
        with trio.move_on_after(_TIME_TO_LEAVE):
            await self._stream.send_eof()
            left = _MAX_LEFTOVERS
            while left > 0 and (data := await self._stream.receive_some(_CHUNK)):
                left -= len(data)
