"""What is kept of what happened, and who listens."""

from __future__ import annotations

import json

import trio
from trio.testing import wait_all_tasks_blocked

from trio_supervisor.controller.event_log import EventLog
from trio_supervisor.controller.events import ServiceScaled
from trio_supervisor.testing import in_virtual_time


def scaled(count: int) -> ServiceScaled:
    return ServiceScaled(name="web", before=0, count=count)


def test_an_entry_says_when_and_what_in_words_and_fields() -> None:
    """As JSON has it."""
    event_log = EventLog()
    event_log.add(scaled(3))
    [entry] = json.loads(json.dumps(event_log.entries))
    time = entry.pop("time")
    assert time.endswith("Z")
    assert len(time) == len("2025-01-01T00:00:00.000Z")
    assert entry == {
        "event": "scaled",
        "name": "web",
        "before": 0,
        "count": 3,
        "message": "scaled from 0 to 3",
        "level": "info",
    }


def test_the_newest_thousand_are_kept() -> None:
    event_log = EventLog()
    for count in range(1500):
        event_log.add(scaled(count))
    assert [entry["count"] for entry in event_log.entries] == list(range(500, 1500))


@in_virtual_time
async def test_a_listener_hears_what_comes_and_not_what_was() -> None:
    event_log = EventLog()
    event_log.add(scaled(1))
    heard: list[int] = []

    async def subscribe() -> None:
        with event_log.subscribe() as subscription:
            while True:
                entries, missed = await subscription.receive()
                assert missed == 0
                heard.extend(entry["count"] for entry in entries)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscribe)
        await wait_all_tasks_blocked()
        assert heard == []
        for count in (2, 3):
            event_log.add(scaled(count))
        await wait_all_tasks_blocked()
        event_log.add(scaled(4))
        await wait_all_tasks_blocked()
        assert heard == [2, 3, 4]
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_a_slow_listener_loses_the_oldest_and_is_told_how_many() -> None:
    """Others lose nothing for its sake."""
    event_log = EventLog()
    with event_log.subscribe() as slow, event_log.subscribe() as quick:
        heard: list[int] = []
        for count in range(1250):
            event_log.add(scaled(count))
            heard += [e["count"] for e in (await quick.receive())[0]]
        assert heard == list(range(1250))

        entries, missed = await slow.receive()
        assert missed == 250
        while entries[-1]["count"] < 1249:
            more, missed = await slow.receive()
            assert missed == 0
            entries += more
        assert [entry["count"] for entry in entries] == list(range(250, 1250))


@in_virtual_time
async def test_one_that_has_left_hears_nothing() -> None:
    event_log = EventLog()
    with event_log.subscribe() as subscription:
        pass
    event_log.add(scaled(1))
    with trio.move_on_after(1) as scope:
        await subscription.receive()
    assert scope.cancelled_caught
