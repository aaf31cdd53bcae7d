"""Convert our spans to those of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import define, field
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from trio_supervisor._version import __version__
from trio_supervisor.controller.telemetry.spans import FinishedSpan, SpanId

_SAMPLED: Final = trace.TraceFlags(trace.TraceFlags.SAMPLED)
_KINDS: Final = {
    "internal": trace.SpanKind.INTERNAL,
    "server": trace.SpanKind.SERVER,
}


class _GivenIds(IdGenerator):
    """Ids that are known already: they were sent to other processes."""

    next: SpanId

    def generate_trace_id(self) -> int:
        return int(self.next.trace, 16)

    def generate_span_id(self) -> int:
        return int(self.next.span, 16)


class _Collector(SpanProcessor):
    """Collects the spans that have ended."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


@define(eq=False)
class OtlpSpans:
    """Makes spans with the SDK, whose limits apply. Not for two threads at once."""

    _resource: Resource
    _ids: _GivenIds = field(factory=_GivenIds, init=False)
    _collector: _Collector = field(factory=_Collector, init=False)
    _tracer: trace.Tracer = field(init=False)

    def __attrs_post_init__(self) -> None:
        # What is not recorded has been left out already: see `policy.trace_sampling`.
        provider = TracerProvider(
            ALWAYS_ON, self._resource, shutdown_on_exit=False, id_generator=self._ids
        )
        provider.add_span_processor(self._collector)
        self._tracer = provider.get_tracer("trio_supervisor", __version__)

    def spans(self, finished: Iterable[FinishedSpan]) -> list[ReadableSpan]:
        """Return *finished* as the exporters take them."""
        for each in finished:
            self._make(each)
        found, self._collector.spans = self._collector.spans, []
        return found

    def _make(self, finished: FinishedSpan) -> None:
        context = trace.set_span_in_context(trace.INVALID_SPAN)
        if finished.parent is not None:
            parent = trace.NonRecordingSpan(_context_of(finished.parent))
            context = trace.set_span_in_context(parent)
        links = []
        if finished.previous is not None:
            why = {"trio_supervisor.link": "previous process"}
            links = [trace.Link(_context_of(finished.previous), why)]
        self._ids.next = finished.id
        span = self._tracer.start_span(
            finished.name,
            context,
            _KINDS[finished.kind],
            dict(finished.attributes),
            links,
            finished.start,
        )
        for moment in finished.moments:
            span.add_event(moment.name, dict(moment.attributes), moment.time)
        if finished.error is not None:
            span.set_status(trace.Status(trace.StatusCode.ERROR, finished.error))
        span.end(finished.end)


def _context_of(span_id: SpanId) -> trace.SpanContext:
    return trace.SpanContext(
        int(span_id.trace, 16),
        int(span_id.span, 16),
        is_remote=True,
        trace_flags=_SAMPLED,
    )
