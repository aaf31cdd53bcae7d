"""Spans that are to be exported, before OpenTelemetry is imported."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from attrs import define, field, frozen

from trio_supervisor.wire.controller_messages import CallSpan

_MOST: Final = 2048
"""Spans that wait for a receiver, as of OpenTelemetry's own processors."""

AttributeValue = str | int | float | bool
Attributes = Mapping[str, AttributeValue]


@frozen(kw_only=True)
class SpanId:
    """What identifies a span, in hexadecimal digits."""

    trace: str
    span: str


@frozen(kw_only=True)
class SpanMoment:
    """Something that happened during a span: an "event" of OpenTelemetry."""

    name: str
    time: int
    """[ns since the epoch]"""
    attributes: Attributes = field(factory=dict)


@frozen(kw_only=True)
class FinishedSpan:
    """A span that has ended."""

    name: str
    id: SpanId
    parent: SpanId | None = None
    kind: Literal["internal", "server"] = "internal"
    start: int
    """[ns since the epoch]"""
    end: int
    attributes: Attributes = field(factory=dict)
    moments: tuple[SpanMoment, ...] = ()
    previous: SpanId | None = None
    """A span of another trace that this one follows."""
    error: str | None = None
    """Why it failed; None: it did not."""


@define(eq=False)
class SpanQueue:
    """Spans that wait for a receiver; the oldest are dropped if there are too many."""

    _spans: deque[FinishedSpan] = field(factory=deque, init=False)
    dropped: int = field(default=0, init=False)
    """How many were dropped, and not reported yet."""

    def __len__(self) -> int:
        return len(self._spans)

    def add(self, spans: Iterable[FinishedSpan]) -> None:
        """Take in *spans*."""
        self._spans.extend(spans)
        while len(self._spans) > _MOST:
            self._spans.popleft()
            self.dropped += 1

    def take(self, most: int) -> list[FinishedSpan]:
        """Remove and return the oldest ones."""
        return [self._spans.popleft() for _ in range(min(most, len(self._spans)))]

    def put_back(self, spans: Iterable[FinishedSpan]) -> None:
        """Return what could not be sent; what is newer has precedence."""
        for span in reversed(list(spans)):
            if len(self._spans) >= _MOST:
                self.dropped += 1
            else:
                self._spans.appendleft(span)

    def take_dropped(self) -> int:
        """Return how many were dropped since the last call."""
        dropped, self.dropped = self.dropped, 0
        return dropped


def span_of_call(call: CallSpan) -> FinishedSpan:
    """Return the span of a call that the supervisor has answered."""
    method = call.method or "unknown operation"
    attributes: dict[str, AttributeValue] = {
        "rpc.system": "trio_supervisor",
        "rpc.method": method,
    }
    if call.caller is not None:
        attributes["trio_supervisor.caller.pid"] = call.caller
    if call.names:
        attributes["trio_supervisor.names"] = ",".join(call.names)
    if call.operation:
        attributes["trio_supervisor.operation"] = call.operation
    if call.is_cancelled:
        attributes["trio_supervisor.cancelled"] = True
    error = None
    if call.error_class:
        attributes["error.type"] = call.error_class
        error = call.problem
    parent = SpanId(trace=call.trace_id, span=call.parent_id)
    return FinishedSpan(
        name=method,
        id=SpanId(trace=call.trace_id, span=call.span_id),
        parent=parent if call.parent_id else None,
        kind="server",
        start=call.start,
        end=call.end,
        attributes=attributes,
        error=error,
    )
