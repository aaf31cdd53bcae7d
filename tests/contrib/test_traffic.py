"""The wrapper of an application: counts, limit, and headers in a drain."""

from __future__ import annotations

from typing import Any

import pytest

from trio_supervisor.contrib.traffic import Message, Receive, Scope, Send, Traffic
from trio_supervisor.contrib.web_metrics import WEB_METRICS, RequestCounts
from trio_supervisor.process.shared_numbers import local_numbers
from trio_supervisor.worker.metrics import WorkerMetrics

START = {"type": "http.response.start", "status": 200}
MORE = {"type": "http.response.body", "body": b"a", "more_body": True}
LAST = {"type": "http.response.body", "body": b"b"}


class Stage:
    """An application that sends *messages*, and all that the server gets."""

    def __init__(self, *messages: Message, limit: int | None = None) -> None:
        self.metrics = WorkerMetrics(WEB_METRICS, local_numbers(WEB_METRICS.slots))
        self.messages = messages
        self.sent: list[Message] = []
        self.scopes: list[Scope] = []
        self.in_flight: list[float] = []
        counts = RequestCounts(self.metrics)
        self.traffic = Traffic(self.app, counts, limit, {"pool": 1})

    async def app(self, scope: Scope, _receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        for message in self.messages:
            if isinstance(message, Exception):
                raise message
            await send(message)
            self.in_flight.append(self.metrics.http_requests_in_flight.value)

    async def ask(self, type_: str = "http", http_version: str = "1.1") -> None:
        scope = {"type": type_, "method": "GET", "http_version": http_version}
        await self.traffic(scope, self._receive, self._send)

    def total(self, status: str) -> Any:
        series = self.metrics.http_requests_total
        return series.labels(method="GET", status=status).value

    async def _receive(self) -> Message:
        raise AssertionError("the application receives nothing")

    async def _send(self, message: Message) -> None:
        self.sent.append(message)


async def test_request_is_over_with_its_last_body() -> None:
    """Work after the answer, such as a background task, is not in flight."""
    stage = Stage(START, MORE, LAST)
    await stage.ask()
    assert stage.sent == [START, MORE, LAST]
    assert stage.in_flight == [1, 1, 0]
    assert stage.total("2xx") == 1


async def test_state_of_the_lifespan_is_copied_to_each_request() -> None:
    stage = Stage(START, LAST)
    await stage.ask()
    await stage.ask("websocket")
    assert [scope["state"] for scope in stage.scopes] == [{"pool": 1}, {"pool": 1}]
    stage.scopes[0]["state"]["pool"] = 2
    assert stage.traffic.state == {"pool": 1}


async def test_websocket_is_not_a_request() -> None:
    stage = Stage({"type": "websocket.accept"}, limit=1)
    await stage.ask("websocket")
    assert stage.metrics.http_request_duration_seconds.value == 0
    assert not stage.traffic.is_exhausted.is_set()


@pytest.mark.parametrize(
    ("messages", "status"),
    [((), "5xx"), ((START,), "2xx")],
    ids=["before the answer", "within the answer"],
)
async def test_exception_is_counted_and_passed_on(
    messages: tuple[Any, ...], status: str
) -> None:
    stage = Stage(*messages, ValueError("on purpose"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on purpose"):
        await stage.ask()
    assert stage.total(status) == 1
    assert stage.metrics.http_requests_in_flight.value == 0


async def test_drain_replaces_the_connection_header() -> None:
    headers = [(b"Connection", b"keep-alive"), (b"x", b"y")]
    stage = Stage({**START, "headers": headers}, LAST)
    await stage.ask()
    assert stage.sent[0]["headers"] == headers

    stage.traffic.is_draining = True
    await stage.ask()

    assert stage.sent[2]["headers"] == [(b"x", b"y"), (b"connection", b"close")]


async def test_drain_adds_no_header_to_http_2() -> None:
    """RFC 9113, 8.2.2: a message with one is malformed."""
    stage = Stage(START, LAST)
    stage.traffic.is_draining = True
    await stage.ask(http_version="2")
    assert stage.sent == [START, LAST]


async def test_limit_is_reached_with_the_last_request() -> None:
    stage = Stage(START, LAST, limit=2)
    await stage.ask()
    assert not stage.traffic.is_exhausted.is_set()
    await stage.ask()
    assert stage.traffic.is_exhausted.is_set()
    await stage.ask()
    assert stage.total("2xx") == 3
