"""Run an operation of the service in the trace of the call."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from trio_supervisor.link.active_span import spans_continue
from trio_supervisor.wire.trace_context import CurrentTrace, TraceContext


def traced(function: Callable[..., Any], context: TraceContext) -> Callable[..., Any]:
    """Return *function* such that it runs in the trace of *context*, in any loop.

    The log of the worker names the trace; spans that the function begins with
    OpenTelemetry, and calls that it makes with our client, continue it.
    """

    def run(**arguments: Any) -> Any:
        with _in_trace(context):
            result = function(**arguments)
        return _finish(result, context) if inspect.isawaitable(result) else result

    return run


async def _finish(work: Awaitable[Any], context: TraceContext) -> Any:
    with _in_trace(context):
        return await work


@contextmanager
def _in_trace(context: TraceContext) -> Iterator[None]:
    trace = CurrentTrace(context)
    try:
        with trace.entered(), spans_continue(context):
            yield
    finally:
        trace.is_over = True
