"""Test that the trace of a call is passed on while the call is being answered."""

from __future__ import annotations

import pytest
import trio
from trio.testing import memory_stream_pair

from trio_supervisor.link.peer import (
    Answer,
    Dispatch,
    Fields,
    IncomingCall,
    open_peer,
)
from trio_supervisor.testing import in_virtual_time
from trio_supervisor.wire.session import Session
from trio_supervisor.wire.trace_context import current_traceparent

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def ask(dispatch: Dispatch, traceparent: str = "") -> Fields:
    ours, theirs = memory_stream_pair()
    async with (
        open_peer(theirs, Session(is_connecting=False), dispatch),
        open_peer(ours, Session(is_connecting=True)) as caller,
    ):
        return await caller.call("where", {}, traceparent=traceparent)


def at_once(call: IncomingCall) -> Answer:
    return {"current": current_traceparent(), "has_trace": call.trace is not None}


def later(call: IncomingCall) -> Answer:
    async def run() -> Fields:
        await trio.sleep(1)
        return {"current": current_traceparent(), "has_trace": call.trace is not None}

    return run()


@pytest.mark.parametrize("dispatch", [at_once, later])
@pytest.mark.parametrize("traceparent", [PARENT, "", "malformed"])
@in_virtual_time
async def test_answering_has_the_trace_of_the_caller(
    dispatch: Dispatch, traceparent: str
) -> None:
    expected = PARENT if traceparent == PARENT else ""
    answer = await ask(dispatch, traceparent)
    assert answer == {"current": expected, "has_trace": bool(expected)}
    assert current_traceparent() == ""


@in_virtual_time
async def test_calls_made_meanwhile_pass_it_on() -> None:
    def pass_on(call: IncomingCall) -> Answer:
        return ask(later)

    assert (await ask(pass_on, PARENT))["current"] == PARENT


@pytest.mark.parametrize("is_later", [False, True])
@in_virtual_time
async def test_task_that_outlives_the_call_is_in_no_trace(is_later: bool) -> None:
    seen: list[str] = []

    async def live_on(nursery_ended: trio.Event) -> None:
        seen.append(current_traceparent())
        await trio.sleep(10)
        seen.append(current_traceparent())
        nursery_ended.set()

    ended = trio.Event()
    async with trio.open_nursery() as nursery:

        def dispatch(call: IncomingCall) -> Answer:
            async def run() -> Fields:
                nursery.start_soon(live_on, ended)
                await trio.sleep(1)
                return {}

            if is_later:
                return run()
            nursery.start_soon(live_on, ended)
            return {}

        await ask(dispatch, PARENT)
        await ended.wait()
    assert seen == ([PARENT, ""] if is_later else ["", ""])
