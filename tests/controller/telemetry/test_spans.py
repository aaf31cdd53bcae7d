"""Test the queue of spans, and the spans of calls."""

from __future__ import annotations

from trio_supervisor.controller.telemetry.spans import (
    FinishedSpan,
    SpanId,
    SpanQueue,
    span_of_call,
)
from trio_supervisor.wire.controller_messages import CallSpan

TRACE, SPAN, PARENT = "4b" * 16, "00f067aa0ba902b7", "b7ad6b7169203331"


def span(number: int) -> FinishedSpan:
    ids = SpanId(trace=f"{number:032x}", span=f"{number:016x}")
    return FinishedSpan(name=str(number), id=ids, start=0, end=1)


def test_queue_drops_the_oldest() -> None:
    queue = SpanQueue()
    queue.add(map(span, range(3000)))
    assert len(queue) == 2048
    first = queue.take(10)
    assert [each.name for each in first] == [str(n) for n in range(952, 962)]
    queue.put_back(first)
    assert len(queue) == 2048
    first = queue.take(10)
    queue.add(map(span, range(3000, 3005)))
    queue.put_back(first)  # the newer ones have precedence
    assert [each.name for each in queue.take(2)] == ["957", "958"]
    assert queue.take_dropped() == 952 + 5
    assert queue.take_dropped() == 0
    assert len(queue.take(5000)) == 2046


def test_call_without_details() -> None:
    found = span_of_call(
        CallSpan(trace_id=TRACE, span_id=SPAN, method="", start=1, end=2)
    )
    assert found == FinishedSpan(
        name="unknown operation",
        id=SpanId(trace=TRACE, span=SPAN),
        kind="server",
        start=1,
        end=2,
        attributes={
            "rpc.system": "trio_supervisor",
            "rpc.method": "unknown operation",
        },
    )


def test_call_with_all_details() -> None:
    found = span_of_call(
        CallSpan(
            trace_id=TRACE,
            span_id=SPAN,
            parent_id=PARENT,
            method="forward",
            start=1,
            end=2,
            caller=4711,
            names=("web.0",),
            operation="thread_dump",
            error_class="NoSuchWorker",
            problem="no worker",
            is_cancelled=True,
        )
    )
    assert found.parent == SpanId(trace=TRACE, span=PARENT)
    assert found.error == "no worker"
    assert dict(found.attributes) == {
        "rpc.system": "trio_supervisor",
        "rpc.method": "forward",
        "trio_supervisor.caller.pid": 4711,
        "trio_supervisor.names": "web.0",
        "trio_supervisor.operation": "thread_dump",
        "trio_supervisor.cancelled": True,
        "error.type": "NoSuchWorker",
    }
