"""Test that operations of a service run in the trace of the call."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.lowlevel

from trio_supervisor.link.active_span import active_traceparent
from trio_supervisor.wire.trace_context import TraceContext, current_traceparent
from trio_supervisor.worker.traced import traced

CALLER = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True)


def where(**arguments: Any) -> dict[str, Any]:
    return {"ours": current_traceparent(), "theirs": active_traceparent(), **arguments}


async def where_later(**arguments: Any) -> dict[str, Any]:
    await trio.lowlevel.checkpoint()
    return where(**arguments)


async def test_function_runs_in_the_trace() -> None:
    expected = {
        "ours": CALLER.to_traceparent(),
        "theirs": CALLER.to_traceparent(),
        "a": 1,
    }
    assert traced(where, CALLER)(a=1) == expected
    assert await traced(where_later, CALLER)(a=1) == expected
    assert where() == {"ours": "", "theirs": ""}


async def test_exception_is_raised() -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await traced(fail, CALLER)()
    assert where() == {"ours": "", "theirs": ""}
