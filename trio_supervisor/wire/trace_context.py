"""Carry the trace that a call belongs to: W3C Trace Context, without OpenTelemetry.

A call may have a field ``traceparent``. While the call is answered, its trace is the
current one of the task that answers: the log names it, and calls made by it
pass it on. Source: https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, NamedTuple

FIELD: Final = "traceparent"
"""Name of the field on the wire."""

# A later version may append fields. Version ff is invalid, as are ids of zeros only.
_FORM: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})"
    r"-([0-9a-f]{2})(-.*)?",
    re.DOTALL,
)
_LONGEST: Final = 512


class TraceContext(NamedTuple):
    """The position of a call in a trace."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits; of the caller's span."""
    is_sampled: bool
    """Whether the caller records its span."""

    def to_traceparent(self) -> str:
        """Return the field of a call."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"


def parse_traceparent(value: object) -> TraceContext | None:
    """Return what a ``traceparent`` says; None: it is malformed, to be ignored."""
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    found = _FORM.fullmatch(value)
    if found is None or (found[1] == "00" and found[5] is not None):
        return None
    return TraceContext(found[2], found[3], bool(int(found[4], 16) & 1))


class CurrentTrace:
    """A trace, for as long as the call is being answered.

    Tasks that a call starts inherit it, and may outlive the call: then it is over, and
    they are outside of any trace.
    """

    __slots__ = ("context", "is_over")

    def __init__(self, context: TraceContext) -> None:
        self.context = context
        self.is_over = False

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be the current trace of this task within the block."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[CurrentTrace | None] = ContextVar("trace", default=None)


def continue_trace(traceparent: str) -> CurrentTrace | None:
    """Return the trace of a call; None: it has none."""
    if not traceparent or (context := parse_traceparent(traceparent)) is None:
        return None
    return CurrentTrace(context)


def current_context() -> TraceContext | None:
    """Return the position in the current trace; None: there is none."""
    trace = _current.get()
    return None if trace is None or trace.is_over else trace.context


def current_traceparent() -> str:
    """Return the field for a call that is made now; empty: there is no trace."""
    context = current_context()
    return "" if context is None else context.to_traceparent()
