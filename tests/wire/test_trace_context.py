"""Test the field ``traceparent`` by the rules of W3C Trace Context."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from trio_supervisor.errors import LocalProtocolError
from trio_supervisor.wire.session import CallReceived, Session
from trio_supervisor.wire.trace_context import (
    TraceContext,
    continue_trace,
    current_context,
    current_traceparent,
    parse_traceparent,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("text", "is_sampled"),
    [
        (VALID, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"01-{TRACE}-{SPAN}-01-of-a-later-version", True),
    ],
)
def test_valid_field(text: str, is_sampled: bool) -> None:
    assert parse_traceparent(text) == TraceContext(TRACE, SPAN, is_sampled)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "garbage",
        VALID.upper(),
        VALID + "\n",
        f"00-{TRACE}-{SPAN}-01-more",
        f"01-{TRACE}-{SPAN}-01more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"01-{TRACE}-{SPAN}-01-" + "x" * 1_000_000,
        None,
        7,
        [VALID],
    ],
    ids=lambda value: str(value)[:60],
)
def test_malformed_field_is_ignored(value: object) -> None:
    assert parse_traceparent(value) is None


pieces = st.sampled_from([VALID, TRACE, SPAN, "00", "ff", "01", "-", "0", "x", "\n"])


@given(st.lists(pieces, max_size=8).map("".join) | st.text(max_size=60))
def test_agrees_with_opentelemetry(text: str) -> None:
    found = parse_traceparent(text)
    context = TraceContextTextMapPropagator().extract({"traceparent": text})
    other = trace.get_current_span(context).get_span_context()
    if found is None:
        # It accepts spaces around the field, and a newline, which we do not.
        assert not other.is_valid or text != text.strip()
    else:
        assert int(found.trace_id, 16) == other.trace_id
        assert int(found.span_id, 16) == other.span_id
        assert found.is_sampled == bool(other.trace_flags & 1)


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_field_round_trip(trace_id: int, span_id: int, is_sampled: bool) -> None:
    context = TraceContext(f"{trace_id:032x}", f"{span_id:016x}", is_sampled)
    assert parse_traceparent(context.to_traceparent()) == context


def test_current_trace_ends_with_its_block_or_its_call() -> None:
    assert current_context() is None
    current = continue_trace(VALID)
    assert current is not None
    with current.entered():
        assert current_context() == TraceContext(TRACE, SPAN, True)
        assert current_traceparent() == VALID
        current.is_over = True
        assert current_traceparent() == ""
    assert current_context() is None


def test_session_sends_and_receives_the_field() -> None:
    """It is no argument; without it a line is as it was before there was the field."""
    _, with_trace = Session(is_connecting=True).call("ping", {"a": 1}, VALID)
    assert json.loads(with_trace) == {
        "id": 2,
        "do": "ping",
        "traceparent": VALID,
        "a": 1,
    }
    receiver = Session(is_connecting=False)
    assert list(receiver.receive_data(with_trace)) == [
        CallReceived(2, "ping", {"a": 1}, VALID)
    ]
    _, without = Session(is_connecting=True).call("ping", {})
    assert without == b'{"id":2,"do":"ping"}\n'


def test_session_ignores_a_field_of_another_type() -> None:
    line = b'{"id":2,"do":"ping","traceparent":{"a":[]}}\n'
    receiver = Session(is_connecting=False)
    assert list(receiver.receive_data(line)) == [CallReceived(2, "ping", {}, "")]


def test_session_refuses_an_argument_of_that_name() -> None:
    with pytest.raises(LocalProtocolError, match="reserved name of an argument"):
        Session(is_connecting=True).call("ping", {"traceparent": VALID})
