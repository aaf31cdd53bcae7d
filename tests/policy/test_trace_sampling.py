"""Test which traces are recorded, against OpenTelemetry's own samplers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import sampling

from trio_supervisor.errors import SpecError
from trio_supervisor.policy.trace_sampling import TraceSampling

OTHERS: Mapping[str, sampling.Sampler] = {
    "": sampling.DEFAULT_ON,
    "always_on": sampling.ALWAYS_ON,
    "always_off": sampling.ALWAYS_OFF,
    "traceidratio": sampling.TraceIdRatioBased(0.25),
    "parentbased_always_on": sampling.DEFAULT_ON,
    "parentbased_always_off": sampling.DEFAULT_OFF,
    "parentbased_traceidratio": sampling.ParentBasedTraceIdRatio(0.25),
}


@given(
    name=st.sampled_from(sorted(OTHERS)),
    trace_id=st.integers(1, 2**128 - 1),
    caller=st.none() | st.booleans(),
)
def test_decides_as_the_samplers_of_opentelemetry(
    name: str, trace_id: int, caller: bool | None
) -> None:
    environ = {"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": "0.25"}
    ours = TraceSampling.read(environ).decide(f"{trace_id:032x}", caller)
    context = None
    if caller is not None:
        flags = trace.TraceFlags(int(caller))
        parent = trace.SpanContext(trace_id, 1, is_remote=True, trace_flags=flags)
        context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
    found = OTHERS[name].should_sample(context, trace_id, "ping")
    assert ours == (found.decision is sampling.Decision.RECORD_AND_SAMPLE)


@pytest.mark.parametrize(
    ("sampler", "argument", "problem"),
    [
        ("jaeger_remote", "", "OTEL_TRACES_SAMPLER: expected always_on, always_off"),
        ("parentbased_", "", "OTEL_TRACES_SAMPLER: expected"),
        ("traceidratio", "half", "OTEL_TRACES_SAMPLER_ARG: expected a number from 0"),
        ("traceidratio", "1.5", "OTEL_TRACES_SAMPLER_ARG: expected"),
        ("traceidratio", "nan", "OTEL_TRACES_SAMPLER_ARG: expected"),
    ],
)
def test_mistake_is_named(sampler: str, argument: str, problem: str) -> None:
    environ = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    with pytest.raises(SpecError) as info:
        TraceSampling.read(environ)
    assert str(info.value).startswith(problem)


def test_ratio_without_an_argument_is_one() -> None:
    found = TraceSampling.read({"OTEL_TRACES_SAMPLER": "traceidratio"})
    assert found == TraceSampling(1.0, heeds_caller=False)
