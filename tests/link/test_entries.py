"""Entries of a stream, read one by one."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_supervisor.errors import ConnectionLostError, RemoteProtocolError
from trio_supervisor.link.entries import MAX_QUEUED, Entries, EntryQueue


def numbered(first: int, count: int) -> dict[str, object]:
    return {"entries": [{"n": n} for n in range(first, first + count)]}


async def test_entries_arrive_in_order_and_end() -> None:
    queue = EntryQueue()
    queue.put(numbered(0, 2))
    queue.put({"entries": [], "missed": 3})
    queue.put(numbered(2, 1))
    queue.close()
    entries = Entries(queue.receive)
    assert [entry["n"] async for entry in entries] == [0, 1, 2]
    assert entries.missed == 3
    assert [entry async for entry in entries] == [], "the end stays the end"


async def test_entries_queue_drops_the_oldest_when_full() -> None:
    queue = EntryQueue()
    for first in range(0, MAX_QUEUED + 500, 100):
        queue.put(numbered(first, 100))
    entries = Entries(queue.receive)
    assert (await anext(entries))["n"] == 500
    assert entries.missed == 500


async def test_entries_wait_for_the_next_one_and_lose_none_when_cancelled() -> None:
    queue = EntryQueue()
    entries = Entries(queue.receive)
    with trio.move_on_after(0):
        await anext(entries)
    found: list[object] = []

    async def read() -> None:
        found.append((await anext(entries))["n"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert not found
        queue.put(numbered(7, 1))
    assert found == [7]


async def test_entries_raise_the_error_of_the_call_after_what_arrived() -> None:
    queue = EntryQueue()
    queue.put(numbered(0, 1))
    queue.close(ConnectionLostError("gone"))
    entries = Entries(queue.receive)
    assert await anext(entries) == {"n": 0}
    for _ in range(2):
        with pytest.raises(ConnectionLostError, match="gone"):
            await anext(entries)


@pytest.mark.parametrize("answer", [{"entries": 7}, {"missed": "3"}, {"missed": True}])
def test_entries_of_the_wrong_types_are_refused(answer: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError, match="expected a list of entries"):
        EntryQueue().put(answer)
