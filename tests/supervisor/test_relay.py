"""Relay a stream of answers to a slow reader (virtual time)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from tests.supervisor.test_server import expect, open_house
from trio_supervisor.errors import ConnectionLostError
from trio_supervisor.link.peer import Answer, Fields, IncomingCall, open_peer
from trio_supervisor.supervisor.relay import Relay
from trio_supervisor.testing import in_virtual_time
from trio_supervisor.wire.session import Session


async def pass_on(batches: list[Fields]) -> list[dict[str, Any]]:
    """Relay *batches*, all of them offered in one instant; return what arrived."""
    ours, theirs = memory_stream_pair()
    heard: list[dict[str, Any]] = []

    async def answer(call: IncomingCall) -> Fields:
        relay = Relay(call)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.run)
            for fields in batches:
                relay.offer(dict(fields))
            await relay.finish()
            nursery.cancel_scope.cancel()
        return {}

    async with (
        open_peer(theirs, Session(is_connecting=False), answer),
        open_peer(ours, Session(is_connecting=True)) as client,
    ):
        await client.call("events", {}, lambda fields: heard.append(dict(fields)))
    return heard


@in_virtual_time
async def test_relay_keeps_order_before_last_answer() -> None:
    batches: list[Fields] = [{"entries": [n]} for n in range(10)]
    assert await pass_on(batches) == batches


@in_virtual_time
async def test_slow_reader_loses_oldest_and_gets_count() -> None:
    """In one batch: 64 are queued, and the hundred before them are counted."""
    batches: list[Fields] = [{"entries": [n, n], "missed": n % 2} for n in range(164)]
    heard = await pass_on(batches)
    assert heard[0]["entries"] == [100, 100]
    assert [batch["entries"][0] for batch in heard] == list(range(100, 164))
    # Two entries each of a hundred batches, and what these had missed already.
    assert heard[0]["missed"] == 200 + 50
    assert [batch["missed"] for batch in heard[1:]] == [n % 2 for n in range(101, 164)]


@in_virtual_time
async def test_events_are_relayed_through_server() -> None:
    """The controller's events come before its answer."""

    async def tell(call: IncomingCall) -> Fields:
        call.progress({"snapshot": {"workers": []}})
        call.progress({"entries": [1, 2], "missed": 0})
        await trio.sleep(5)
        call.progress({"entries": [3], "missed": 7})
        return {"over": True}

    def controller(call: IncomingCall) -> Answer:
        assert (call.do, call.arguments) == ("events", {"follow": True})
        return tell(call)

    heard: list[dict[str, Any]] = []
    async with (
        open_house() as house,
        house.control(controller),
        house.connect() as client,
    ):
        answer = await client.call(
            "events", {"follow": True}, lambda fields: heard.append(dict(fields))
        )
    assert answer == {"over": True}
    assert heard == [
        {"snapshot": {"workers": []}},
        {"entries": [1, 2], "missed": 0},
        {"entries": [3], "missed": 7},
    ]
    assert trio.current_time() == 5


@in_virtual_time
async def test_relayed_failure_keeps_name_and_progress() -> None:
    async def fail(call: IncomingCall) -> Fields:
        call.progress({"entries": [1]})
        raise LookupError("no such thing")

    heard: list[dict[str, Any]] = []
    async with (
        open_house() as house,
        house.control(lambda call: fail(call)),
        house.connect() as client,
    ):
        with expect("OperationFailed"):
            await client.call("logs", {}, lambda fields: heard.append(dict(fields)))
    assert heard == [{"entries": [1]}]


@in_virtual_time
async def test_disconnected_caller_cancels_controller_call() -> None:
    """Otherwise the controller would send to a caller that is gone."""
    ended: list[float] = []

    async def tell(call: IncomingCall) -> Fields:
        try:
            while True:
                call.progress({"entries": [1]})
                await trio.sleep(1)
        finally:
            ended.append(trio.current_time())

    async with open_house() as house, house.control(lambda call: tell(call)):
        with (
            pytest.raises((trio.TooSlowError, ConnectionLostError)),
            trio.fail_after(3.5),
        ):
            async with house.connect() as client:
                await client.call("events", {"follow": True}, lambda _: None)
        await trio.sleep(1)
        assert ended == [3.5]
