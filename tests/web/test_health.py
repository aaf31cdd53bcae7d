"""Health endpoints over HTTP, with http.client and with misbehaving clients."""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from attrs import define, field

from tests.kits.sockets import exists
from trio_supervisor.errors import ListenError, SpecError
from trio_supervisor.web import http as web_http
from trio_supervisor.web.health import (
    PATHS,
    HealthKind,
    open_http_listener,
    parse_http_address,
    serve_health,
)

T = TypeVar("T")
LOCAL = "127.0.0.1:0"


@define
class Source:
    """A health source whose result the test sets."""

    failing: set[HealthKind] = field(factory=set)
    details: dict[str, object] = field(factory=dict)

    def report(self, kind: HealthKind) -> tuple[bool, Mapping[str, object]]:
        """Return the result that was set."""
        return kind not in self.failing, self.details

    async def metrics(self, *, per_worker: bool, openmetrics: bool) -> str:
        """Return what was requested."""
        return f"{per_worker=} {openmetrics=}\n"


class Broken:
    """A health source that raises."""

    def report(self, kind: HealthKind) -> tuple[bool, Mapping[str, object]]:
        """Raise."""
        raise KeyError(kind)

    async def metrics(self, *, per_worker: bool, openmetrics: bool) -> str:
        """Raise."""
        raise KeyError


@asynccontextmanager
async def serving(source: Source | Broken, address: str = LOCAL) -> AsyncIterator[str]:
    async with (
        open_http_listener(address) as (listener, real),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(serve_health, source, [listener])
        with trio.fail_after(60):
            yield real
        nursery.cancel_scope.cancel()


def connect(address: str) -> socket.socket:
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        sock = socket.create_connection((host.strip("[]"), int(port)))
    sock.settimeout(30)
    return sock


def ask(
    address: str, path: str, method: str = "GET"
) -> tuple[int, bytes, dict[str, str]]:
    """Make one request by http.client; return status, body and headers."""
    client = http.client.HTTPConnection("here")
    client.sock = connect(address)
    client.request(method, path)
    response = client.getresponse()
    try:
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, response.read(), headers
    finally:
        client.close()


def converse(address: str, data: bytes) -> bytes:
    """Send *data*, and return all data until the server closes."""
    with connect(address) as sock:
        sock.sendall(data)
        return read_all(sock)


def read_all(sock: socket.socket) -> bytes:
    said = b""
    while data := sock.recv(65_536):
        said += data
    return said


async def in_thread(function: Callable[..., T], *args: object) -> T:
    return await trio.to_thread.run_sync(partial(function, *args))


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/livez", "liveness"), ("/readyz", "readiness"), ("/startupz", "startup")],
)
async def test_path_selects_the_kind_of_check(path: str, kind: HealthKind) -> None:
    source = Source()
    async with serving(source) as address:
        assert (await in_thread(ask, address, path))[:2] == (200, b"ok\n")
        source.failing = {kind}
        assert (await in_thread(ask, address, path))[:2] == (503, b"failing\n")
        source.failing = set(PATHS.values()) - {kind}
        assert (await in_thread(ask, address, path))[:2] == (200, b"ok\n")


@pytest.mark.parametrize("query", ["?verbose", "?verbose=1", "?a=b&verbose"])
async def test_verbose_returns_details_as_json(query: str) -> None:
    source = Source({"readiness"}, {"ready": 3, "wanted": 4, "missing": ["web.1"]})
    async with serving(source) as address:
        status, body, headers = await in_thread(ask, address, f"/readyz{query}")
    assert status == 503
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {
        "ok": False,
        "ready": 3,
        "wanted": 4,
        "missing": ["web.1"],
    }


async def test_response_is_not_cacheable() -> None:
    async with serving(Source()) as address:
        _, _, headers = await in_thread(ask, address, "/livez")
    assert headers["cache-control"] == "no-store"
    assert headers["date"].endswith(" GMT")


async def test_head_omits_the_body() -> None:
    async with serving(Source()) as address:
        said = await in_thread(converse, address, b"HEAD /livez HTTP/1.0\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"Content-Length: 3\r\n" in said
    assert said.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", ["/", "/livez/", "//livez", "/health", "/livez%20"])
async def test_unknown_path_returns_404(path: str) -> None:
    async with serving(Source()) as address:
        status, body, _ = await in_thread(ask, address, path)
    assert status == 404
    assert b"/livez, /readyz, /startupz" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
async def test_unsupported_method_returns_405(method: str) -> None:
    async with serving(Source()) as address:
        status, _, headers = await in_thread(ask, address, "/livez", method)
    assert status == 405
    assert headers["allow"] == "GET, HEAD"


async def test_connection_is_reused_for_several_requests() -> None:
    def many(address: str) -> list[int]:
        client = http.client.HTTPConnection("here")
        client.sock = sock = connect(address)
        statuses = []
        for path in ["/livez", "/readyz", "/nowhere", "/livez"]:
            client.request("GET", path)
            response = client.getresponse()
            response.read()
            statuses.append(response.status)
            assert client.sock is sock
        client.close()
        return statuses

    async with serving(Source({"readiness"})) as address:
        assert await in_thread(many, address) == [200, 503, 404, 200]


async def test_pipelined_and_fragmented_requests_are_answered() -> None:
    one = b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n"
    last = b"GET /livez HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"

    def drip(address: str) -> bytes:
        with connect(address) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(len(last)):
                sock.sendall(last[i : i + 1])
            return read_all(sock)

    async with serving(Source()) as address:
        said = await in_thread(converse, address, one + one + last)
        assert said.count(b"HTTP/1.1 200 ") == 3
        assert (await in_thread(drip, address)).count(b"HTTP/1.1 200 ") == 1


@pytest.mark.parametrize("target", [b"http://here/livez", b"http://here/livez?verbose"])
async def test_absolute_request_target_is_accepted(target: bytes) -> None:
    data = b"GET " + target + b" HTTP/1.0\r\n\r\n"
    async with serving(Source()) as address:
        assert b" 200 " in await in_thread(converse, address, data)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"garbage\r\n\r\n", 400, id="no HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400, id="TLS"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no host"),
        pytest.param(b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="two blanks"),
        pytest.param(b"GET http://[ HTTP/1.0\r\n\r\n", 400, id="no address"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            501,
            id="unknown encoding",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
            400,
            id="no length",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + 20_000 * b"x" + b"\r\n\r\n",
            431,
            id="a header too long",
        ),
        pytest.param(b"G" * 100_000, 431, id="a line without an end"),
    ],
)
async def test_malformed_request_gets_an_error_status(data: bytes, status: int) -> None:
    """It closes the connection so that the response arrives; others are unaffected."""
    async with serving(Source()) as address:
        said = await in_thread(converse, address, data)
        assert said.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close" in said.lower()
        assert (await in_thread(ask, address, "/livez"))[0] == 200


@pytest.mark.parametrize("size", [3, 60_000])
async def test_request_with_body_closes_the_connection(size: int) -> None:
    """The response comes without waiting for the body."""
    head = b"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
    async with serving(Source()) as address:
        for data in (head, head + size * b"x"):
            said = await in_thread(converse, address, data)
            assert said.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in said.lower()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"GET /li", b"HTTP/1.1 408 ", id="half a line"),
        pytest.param(
            b"GET /livez HTTP/1.1\r\nHost: h\r\n", b"HTTP/1.1 408 ", id="no end"
        ),
    ],
)
async def test_stalled_client_is_disconnected(
    monkeypatch: pytest.MonkeyPatch, data: bytes, says: bytes
) -> None:
    """After TIME_TO_REQUEST, shorter here."""
    monkeypatch.setattr(web_http, "TIME_TO_REQUEST", 3.0)
    async with serving(Source()) as address:
        said = await in_thread(converse, address, data)
        assert said.startswith(says)
        assert bool(said) == bool(says)


async def test_client_that_does_not_read_is_disconnected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the responses have filled the buffers, after _TIME_TO_READ, shorter here."""
    monkeypatch.setattr(web_http, "_TIME_TO_READ", 0.05)
    request = b"GET /livez?verbose HTTP/1.1\r\nHost: here\r\n\r\n"

    def flood(address: str) -> bool:
        with connect(address) as sock:
            sock.sendall(1000 * request)
            poll = select.poll()
            poll.register(sock, 0)  # only the end of the connection
            return bool(poll.poll(30_000))

    async with serving(Source(details={"x": 100_000 * "x"})) as address:
        assert await in_thread(flood, address)
        assert (await in_thread(ask, address, "/livez"))[0] == 200


async def test_connection_limit_closes_the_least_recently_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web_http, "TIME_TO_REQUEST", 60.0)  # also on a loaded machine
    limit = web_http.MAX_CONNECTIONS
    request = b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n"

    def crowd(address: str) -> None:
        with ExitStack() as stack:
            clients = []
            for _ in range(limit):
                client = stack.enter_context(connect(address))
                client.sendall(request)
                assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
                clients.append(client)
            clients[0].sendall(request)  # now the second is the oldest
            assert client_is_served(clients[0])
            with connect(address) as one_more:
                one_more.sendall(request)
                assert client_is_served(one_more)
                assert clients[1].recv(1) == b""
                for client in (clients[0], clients[2], clients[-1]):
                    client.sendall(request)
                    assert client_is_served(client)

    async with serving(Source()) as address:
        await in_thread(crowd, address)


def client_is_served(client: socket.socket) -> bool:
    return client.recv(4096).startswith(b"HTTP/1.1 200 ")


async def test_client_reset_does_not_affect_others() -> None:
    def hang_up(address: str) -> None:
        for data in (b"", b"GET /li", b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"):
            sock = connect(address)
            sock.sendall(data)
            # No lingering: close(2) sends a reset.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()

    async with serving(Source()) as address:
        await in_thread(hang_up, address)
        assert (await in_thread(ask, address, "/livez"))[0] == 200


async def test_source_that_raises_returns_500_and_logs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A bug in a health source must not end the controller."""
    async with serving(Broken()) as address:
        status, body, _ = await in_thread(ask, address, "/livez")
        assert (status, body) == (500, b"internal server error\n")
    assert "error while answering GET /livez" in caplog.text
    assert "KeyError" in caplog.text


@pytest.fixture
def path() -> Iterator[str]:
    """A path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="ts") as directory:
        yield str(Path(directory, "health"))


@pytest.mark.parametrize(
    "address", ["127.0.0.1:0", "localhost:0", ":0", "[::1]:0", "unix:PATH"]
)
async def test_listener_accepts_every_form_of_address(path: str, address: str) -> None:
    async with serving(Source(), address.replace("PATH", path)) as real:
        client = real.replace("[::]", "[::1]")
        assert (await in_thread(ask, client, "/livez"))[0] == 200
    assert not exists(path)


@pytest.mark.parametrize(
    "text", ["", "8080", "host", "http://host:80", "a:b", ":99999", "::1:80", "unix:"]
)
def test_parse_http_address_rejects_other_text(text: str) -> None:
    with pytest.raises(SpecError, match=r"expected HOST:PORT, :PORT, \[IPv6\]:PORT"):
        parse_http_address(text)


async def test_address_in_use_raises_listen_error() -> None:
    async with serving(Source()) as address:
        with pytest.raises(ListenError, match=f"cannot listen on {address}: port in"):
            async with open_http_listener(address):
                pytest.fail("it was bound")


async def test_server_closes_all_descriptors() -> None:
    before = set(os.listdir("/dev/fd"))
    async with serving(Source()) as address:
        with connect(address) as client:
            client.sendall(b"GET /li")
            await in_thread(ask, address, "/livez")
    assert set(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize(
    "head",
    [
        "HTTP/1.1|Host: x|Content-Length: 5|Transfer-Encoding: chunked",
        "HTTP/1.1|Host: x|Transfer-Encoding: chunked|Content-Length: 5",
        "HTTP/1.1|Host: x|Transfer-Encoding: chunked|Content-Length: 0",
        "HTTP/1.0|Host: x|Transfer-Encoding: chunked",
        "HTTP/1.1|Host: x|Content-Length: 5|Content-Length: 6",
        "HTTP/1.1|Host: x|Content-Length: 5, 6",
        "HTTP/1.1|Host: x|Content-Length: +5",
        "HTTP/1.1|Host: x|Content-Length: 0x5",
        "HTTP/1.1|Host: x|Content-Length : 5",
        "HTTP/1.1|Host: x| Content-Length: 5",
        "HTTP/1.1|Host: x|Host: y",
        "HTTP/1.1|Host: x|Transfer-Encoding: chunked, identity",
        "HTTP/1.1|Host: x|Transfer-Encoding: xchunked",
        "HTTP/1.1|Host: x|X: a\rContent-Length: 5",
        "HTTP/1.1|Host: x|X: a\0b",
    ],
)
async def test_ambiguous_framing_is_refused_and_disconnected(
    head: str,
) -> None:
    """Else the next bytes could be a request to us, but a body to a proxy."""
    version, *headers = head.split("|")
    lines = "".join(f"{line}\r\n" for line in headers)
    smuggled = "0\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    data = f"GET /livez {version}\r\n{lines}\r\n{smuggled}".encode()
    async with serving(Source()) as address:
        said = await in_thread(converse, address, data)
    assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), said
    assert said.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close\r\n" in said
