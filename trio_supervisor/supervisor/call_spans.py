"""Record the calls of clients and workers as spans of traces."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

import trio
from attrs import define, field

from trio_supervisor.errors import SupervisorError
from trio_supervisor.link.peer import Answer, Dispatch, Fields, IncomingCall
from trio_supervisor.policy.trace_sampling import TraceSampling
from trio_supervisor.supervisor.roles import is_probe
from trio_supervisor.tasks import single
from trio_supervisor.wire.controller_messages import CallSpan, ReportSpans
from trio_supervisor.wire.limits import MAX_NAME
from trio_supervisor.wire.protocol import OPERATIONS
from trio_supervisor.wire.trace_context import CurrentTrace, TraceContext

_MOST: Final = 2048
"""Spans that wait for the controller; more are only counted."""
_BATCH: Final = 256
_GATHER: Final = 0.1
"""Interval over which spans are gathered before they are reported [s]."""
_RETRY: Final = 1.0
"""After a report that could not be sent [s]."""
_MOST_NAMES: Final = 10
_LONGEST: Final = 200
"""Of the message of an error [characters]."""

Report = Callable[[ReportSpans], bool]
"""Sends a report; returns whether that was possible."""


@define(eq=False)
class CallSpans:
    """The spans of one supervisor; its `run` is a task of the caller."""

    _sampling: TraceSampling | None
    """None: nothing is recorded; a caller's trace is passed on unchanged."""
    _report: Report
    _spans: deque[CallSpan] = field(factory=deque, init=False)
    _dropped: int = field(default=0, init=False)
    _news: trio.Event = field(factory=trio.Event, init=False)

    def answer(
        self, call: IncomingCall, process_id: int | None, dispatch: Dispatch
    ) -> Answer:
        """Have *dispatch* answer *call*, in a span.

        Args:
            process_id: Of the caller; None: unknown.
        """
        if self._sampling is None or is_probe(call):
            return dispatch(call)
        span = _OpenSpan(self, call, process_id, self._sampling)
        trace = CurrentTrace(span.context)
        try:
            with trace.entered():
                answer = dispatch(call)
        except Exception as exc:
            trace.is_over = True
            span.end(exc)
            raise
        if isinstance(answer, Coroutine):
            return _answer_later(answer, span, trace)
        trace.is_over = True
        span.end()
        return answer

    def add(self, span: CallSpan) -> None:
        """Take in a span that has ended."""
        if len(self._spans) >= _MOST:
            self._dropped += 1
            return
        self._spans.append(span)
        self._news.set()

    async def run(self) -> None:
        """Report spans until cancelled."""
        while True:
            if not self._spans:
                self._news = trio.Event()
                await self._news.wait()
            await trio.sleep(_GATHER)
            self.flush()
            if self._spans:
                await trio.sleep(_RETRY)

    def flush(self) -> None:
        """Report what is there; what cannot be sent now stays."""
        while self._spans:
            count = min(len(self._spans), _BATCH)
            batch = tuple(self._spans[number] for number in range(count))
            if not self._report(ReportSpans(spans=batch, dropped=self._dropped)):
                return
            self._dropped = 0
            for _ in range(count):
                self._spans.popleft()


class _OpenSpan:
    """The span of a call that is being answered."""

    def __init__(
        self,
        owner: CallSpans,
        call: IncomingCall,
        process_id: int | None,
        sampling: TraceSampling,
    ) -> None:
        self._owner, self._call, self._process_id = owner, call, process_id
        self._start = time.time_ns()
        caller = call.trace
        trace_id = os.urandom(16).hex() if caller is None else caller.trace_id
        is_sampled = sampling.decide(
            trace_id, None if caller is None else caller.is_sampled
        )
        self.context = TraceContext(trace_id, os.urandom(8).hex(), is_sampled)

    def end(self, error: BaseException | None = None) -> None:
        """Record the span, if its trace is recorded."""
        if not self.context.is_sampled:
            return
        call = self._call
        error = None if error is None else single(error)
        error_class, text = _error_of(error)
        self._owner.add(
            CallSpan(
                trace_id=self.context.trace_id,
                span_id=self.context.span_id,
                parent_id="" if call.trace is None else call.trace.span_id,
                # Names of spans are few: a peer may send any text.
                method=call.do if call.do in OPERATIONS else "",
                start=self._start,
                end=time.time_ns(),
                caller=self._process_id,
                names=_names_of(call),
                operation=_operation_of(call),
                error_class=error_class,
                problem=text,
                is_cancelled=isinstance(error, trio.Cancelled),
            )
        )


async def _answer_later(
    work: Coroutine[Any, Any, Fields], span: _OpenSpan, trace: CurrentTrace
) -> Fields:
    error: BaseException | None = None
    try:
        with trace.entered():
            return await work
    except BaseException as exc:
        error = exc
        raise
    finally:
        trace.is_over = True
        span.end(error)


def _error_of(error: BaseException | None) -> tuple[str, str]:
    if error is None or isinstance(error, trio.Cancelled):
        return "", ""
    if isinstance(error, SupervisorError):
        return error.wire_name, str(error)[:_LONGEST]
    return "OperationFailed", type(error).__name__


def _names_of(call: IncomingCall) -> tuple[str, ...]:
    found = call.arguments.get("names")
    if not isinstance(found, list):
        found = [call.arguments.get("name")]
    texts = [each for each in found[:_MOST_NAMES] if isinstance(each, str)]
    return tuple(each[:MAX_NAME] for each in texts)


def _operation_of(call: IncomingCall) -> str:
    operation = call.arguments.get("operation")
    do = operation.get("do") if isinstance(operation, dict) else None
    return do[:MAX_NAME] if isinstance(do, str) else ""
