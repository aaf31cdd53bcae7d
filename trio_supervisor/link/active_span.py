"""Continue traces of a program that uses OpenTelemetry; nothing here imports it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trio_supervisor.wire.trace_context import TraceContext


def active_traceparent() -> str:
    """Return the ``traceparent`` of OpenTelemetry's active span; empty: there is none.

    A program that has not imported OpenTelemetry has none.
    """
    if (trace := _loaded("opentelemetry.trace")) is None:
        return ""
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return ""
    return TraceContext(
        format(found.trace_id, "032x"),
        format(found.span_id, "016x"),
        bool(found.trace_flags.sampled),
    ).to_traceparent()


@contextmanager
def spans_continue(context: TraceContext) -> Iterator[None]:
    """Make spans that are begun within the block children of the caller's span."""
    trace, contexts = _loaded("opentelemetry.trace"), _loaded("opentelemetry.context")
    if trace is None or contexts is None:
        yield
        return
    parent = trace.NonRecordingSpan(
        trace.SpanContext(
            int(context.trace_id, 16),
            int(context.span_id, 16),
            is_remote=True,
            trace_flags=trace.TraceFlags(int(context.is_sampled)),
        )
    )
    token = contexts.attach(trace.set_span_in_context(parent))
    try:
        yield
    finally:
        contexts.detach(token)


def _loaded(module: str) -> Any:
    return sys.modules.get(module)
