"""Test that spans become those of OpenTelemetry, field by field."""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.resources import Resource

from tests.kits.otlp import attributes
from trio_supervisor.controller.telemetry.otlp_spans import OtlpSpans
from trio_supervisor.controller.telemetry.spans import (
    FinishedSpan,
    SpanId,
    SpanMoment,
)

ID = SpanId(trace="4b" * 16, span="00f067aa0ba902b7")
PARENT = SpanId(trace="4b" * 16, span="b7ad6b7169203331")
PREVIOUS = SpanId(trace="5c" * 16, span="c8ad6b7169203331")


def encoded(*spans: FinishedSpan) -> list[Span]:
    found = OtlpSpans(Resource({})).spans(spans)
    [resource] = encode_spans(found).resource_spans
    [scope] = resource.scope_spans
    assert scope.scope.name == "trio_supervisor"
    return list(scope.spans)


def test_all_fields() -> None:
    moment = SpanMoment(name="ready", time=15, attributes={"a": "b"})
    [span] = encoded(
        FinishedSpan(
            name="worker web",
            id=ID,
            parent=PARENT,
            kind="server",
            start=10,
            end=20,
            attributes={"process.pid": 7},
            moments=(moment,),
            previous=PREVIOUS,
            error="killed",
        )
    )
    assert (span.name, span.kind) == ("worker web", Span.SPAN_KIND_SERVER)
    assert (span.trace_id.hex(), span.span_id.hex()) == (ID.trace, ID.span)
    assert span.parent_span_id.hex() == PARENT.span
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (10, 20)
    assert attributes(span.attributes) == {"process.pid": 7}
    [event] = span.events
    assert (event.name, event.time_unix_nano) == ("ready", 15)
    assert attributes(event.attributes) == {"a": "b"}
    [link] = span.links
    assert (link.trace_id.hex(), link.span_id.hex()) == (PREVIOUS.trace, PREVIOUS.span)
    assert attributes(link.attributes) == {"trio_supervisor.link": "previous process"}
    assert span.status == Status(code=Status.STATUS_CODE_ERROR, message="killed")


def test_plain_span() -> None:
    plain = FinishedSpan(name="a", id=ID, start=1, end=2)
    other = FinishedSpan(name="b", id=PREVIOUS, start=3, end=4)
    first, second = encoded(plain, other)
    assert (first.name, second.name) == ("a", "b")
    assert first.parent_span_id == b""
    assert first.kind == Span.SPAN_KIND_INTERNAL
    assert first.status == Status()
    assert second.trace_id.hex() == PREVIOUS.trace
