"""Test the spans of calls: their fields, their trace, and how they are reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import trio
import trio.lowlevel

from trio_supervisor.errors import NoSuchWorkerError
from trio_supervisor.link.peer import Answer, Fields, IncomingCall, Peer
from trio_supervisor.policy.trace_sampling import TraceSampling
from trio_supervisor.supervisor.call_spans import CallSpans
from trio_supervisor.testing import in_virtual_time
from trio_supervisor.wire.controller_messages import CallSpan, ReportSpans
from trio_supervisor.wire.trace_context import TraceContext, current_context

CALLER = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True)


class Reports:
    """A controller that may be absent."""

    def __init__(self) -> None:
        self.spans: list[CallSpan] = []
        self.dropped = 0
        self.is_there = True

    def __call__(self, report: ReportSpans) -> bool:
        if self.is_there:
            self.spans += report.spans
            self.dropped += report.dropped
        return self.is_there


def call_of(do: str, trace: TraceContext | None = None, **fields: Any) -> IncomingCall:
    return IncomingCall(do, fields, cast(Peer, None), 2, trace)


def one(
    call: IncomingCall,
    answer: Callable[[IncomingCall], Answer] = lambda call: {},
    sampling: TraceSampling | None = None,
) -> CallSpan:
    reports = Reports()
    spans = CallSpans(sampling or TraceSampling(), reports)
    spans.answer(call, 4711, answer)
    spans.flush()
    [span] = reports.spans
    return span


def test_call_without_a_trace_begins_one() -> None:
    seen: list[TraceContext | None] = []

    def answer(call: IncomingCall) -> Answer:
        seen.append(current_context())
        return {}

    span = one(call_of("restart", names=["web.0", 7]), answer)
    assert (span.method, span.caller, span.names) == ("restart", 4711, ("web.0",))
    assert (span.parent_id, span.error_class) == ("", "")
    assert span.start <= span.end
    assert seen == [TraceContext(span.trace_id, span.span_id, True)]
    assert current_context() is None


def test_call_in_a_trace_continues_it() -> None:
    forward = {"name": "web.1", "operation": {"do": "thread_dump"}}
    span = one(call_of("forward", CALLER, **forward))
    assert (span.trace_id, span.parent_id) == (CALLER.trace_id, CALLER.span_id)
    assert (span.names, span.operation) == (("web.1",), "thread_dump")


def test_text_of_a_peer_is_bounded() -> None:
    """An operation that does not exist may have any name."""
    assert one(call_of("x" * 100_000)).method == ""
    operation = {"do": "y" * 100_000}
    span = one(call_of("forward", name="z" * 100_000, operation=operation))
    assert (len(span.names[0]), len(span.operation)) == (200, 200)
    assert len(one(call_of("stop", names=["a"] * 50)).names) == 10


async def test_failures_are_recorded() -> None:
    def refuse(call: IncomingCall) -> Answer:
        raise NoSuchWorkerError("no worker 'web.9'")

    async def fail() -> Fields:
        await trio.lowlevel.checkpoint()
        raise ExceptionGroup("", [ValueError("secret")])

    reports = Reports()
    spans = CallSpans(TraceSampling(), reports)
    with pytest.raises(NoSuchWorkerError):
        spans.answer(call_of("stop"), 1, refuse)
    answer: Any = spans.answer(call_of("stop"), 1, lambda call: fail())
    with pytest.raises(ExceptionGroup):
        await answer
    answer = spans.answer(call_of("logs"), 1, lambda call: wait_forever())
    with trio.move_on_after(0):
        await answer
    spans.flush()
    assert [(s.error_class, s.problem, s.is_cancelled) for s in reports.spans] == [
        ("NoSuchWorker", "no worker 'web.9'", False),
        ("OperationFailed", "ValueError", False),
        ("", "", True),
    ]


async def wait_forever() -> Fields:
    await trio.sleep_forever()
    return {}


def test_what_is_not_sampled_is_not_recorded_but_passed_on() -> None:
    seen: list[TraceContext | None] = []

    def answer(call: IncomingCall) -> Answer:
        seen.append(current_context())
        return {}

    reports = Reports()
    spans = CallSpans(TraceSampling(), reports)
    spans.answer(call_of("ping", CALLER._replace(is_sampled=False)), 1, answer)
    spans.flush()
    assert reports.spans == []
    [context] = seen
    assert context is not None
    assert (context.trace_id, context.is_sampled) == (CALLER.trace_id, False)


def test_search_for_the_kind_of_server_is_not_recorded() -> None:
    reports = Reports()
    spans = CallSpans(TraceSampling(), reports)
    spans.answer(call_of("forward", connection_id="", operation={}), 1, lambda _: {})
    spans.flush()
    assert reports.spans == []


def test_without_sampling_nothing_is_recorded() -> None:
    reports = Reports()
    spans = CallSpans(None, reports)
    assert spans.answer(call_of("ping"), 1, lambda _: {"a": 1}) == {"a": 1}
    spans.flush()
    assert reports.spans == []


@in_virtual_time
async def test_spans_wait_for_the_controller_and_are_bounded() -> None:
    reports = Reports()
    reports.is_there = False
    spans = CallSpans(TraceSampling(), reports)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spans.run)
        for _ in range(2050):
            spans.answer(call_of("ping"), 1, lambda _: {})
        await trio.sleep(1)
        assert reports.spans == []
        reports.is_there = True
        await trio.sleep(2)
        assert (len(reports.spans), reports.dropped) == (2048, 2)
        spans.answer(call_of("ping"), 1, lambda _: {})
        await trio.sleep(1)
        assert len(reports.spans) == 2049
        nursery.cancel_scope.cancel()
