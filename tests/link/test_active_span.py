"""Test traces of a program that uses OpenTelemetry, and of one that does not."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from trio_supervisor.link.active_span import active_traceparent, spans_continue
from trio_supervisor.wire.trace_context import TraceContext, parse_traceparent


def tracer(sampler: Sampler = ALWAYS_ON) -> trace.Tracer:
    return TracerProvider(sampler, shutdown_on_exit=False).get_tracer("tests")


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF])
def test_active_span_is_the_caller(sampler: Sampler) -> None:
    assert active_traceparent() == ""
    with tracer(sampler).start_as_current_span("work") as span:
        found = parse_traceparent(active_traceparent())
    context = span.get_span_context()
    assert found == TraceContext(
        f"{context.trace_id:032x}", f"{context.span_id:016x}", sampler is ALWAYS_ON
    )
    assert active_traceparent() == ""


def test_spans_continue_the_trace_of_a_call() -> None:
    caller = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True)
    with spans_continue(caller):
        assert active_traceparent() == caller.to_traceparent()
        span = tracer().start_span("work")
    assert f"{span.get_span_context().trace_id:032x}" == caller.trace_id
    assert active_traceparent() == ""


def test_opentelemetry_is_not_imported() -> None:
    program = """
import sys
from trio_supervisor.link.active_span import active_traceparent, spans_continue
from trio_supervisor.wire.trace_context import TraceContext
with spans_continue(TraceContext("1" * 32, "2" * 16, True)):
    print(repr(active_traceparent()), *[m for m in sys.modules if "opentel" in m])
"""
    done = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert done == "''\n"
