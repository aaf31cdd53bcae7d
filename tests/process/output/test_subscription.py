"""Subscribing to lines, with readers that are too slow."""

from __future__ import annotations

import trio

from tests.kits.output import block
from trio_supervisor.process.output.blocks import Block
from trio_supervisor.process.output.subscription import Subscription


def numbered(start: int, stop: int) -> Block:
    return block(b"".join(b"%04d\n" % number for number in range(start, stop)))


def forget(_: Subscription) -> None:
    pass


async def test_subscription_counts_missed_lines_at_their_place() -> None:
    """After the lines already read, and before the later ones."""
    lines = Subscription(None, forget, limit=1000)
    lines.offer(numbered(0, 300))
    first = await anext(lines)
    for start in range(300, 1000, 100):
        lines.offer(numbered(start, start + 100))
    second, third = await anext(lines), await anext(lines)
    assert [batch.missed for batch in (first, second, third)] == [0, 0, 500]
    found = [
        int(str(entry["message"]))
        for batch in (first, second, third)
        for entry in batch.entries
    ]
    assert found == [*range(300), *range(800, 1000)]


async def test_subscription_keeps_single_oversized_block() -> None:
    """The last lines are never lost."""
    lines = Subscription(None, forget, limit=1)
    lines.offer(numbered(0, 2))
    lines.offer(numbered(2, 4))
    batch = await anext(lines)
    assert (batch.missed, len(batch.entries)) == (2, 2)


async def test_subscription_cancelled_reader_loses_nothing() -> None:
    """A later line does not wake the cancelled reader."""
    lines = Subscription(None, forget)
    with trio.move_on_after(0):
        await anext(lines)
    lines.offer(numbered(0, 1))
    assert len((await anext(lines)).entries) == 1


async def test_subscription_batches_small_blocks() -> None:
    """One message over the socket for each line would be slow."""
    lines = Subscription(None, forget)
    for number in range(300):
        lines.offer(numbered(number, number + 1))
    batches = [await anext(lines), await anext(lines)]
    assert [len(batch.entries) for batch in batches] == [200, 100]
