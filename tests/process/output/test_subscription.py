"""Following lines, with a reader that is too slow."""

from __future__ import annotations

import trio

from tests.kits.output import block
from trio_supervisor.process.output.blocks import Block
from trio_supervisor.process.output.subscription import Subscription


def numbered(start: int, stop: int) -> Block:
    return block(b"".join(b"%04d\n" % number for number in range(start, stop)))


def forget(_: Subscription) -> None:
    pass


async def test_what_was_missed_is_counted_where_it_is_missing() -> None:
    """Not before what the reader had come to, nor after what followed."""
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


async def test_a_block_that_is_too_large_by_itself_is_kept() -> None:
    """The last lines are never lost."""
    lines = Subscription(None, forget, limit=1)
    lines.offer(numbered(0, 2))
    lines.offer(numbered(2, 4))
    batch = await anext(lines)
    assert (batch.missed, len(batch.entries)) == (2, 2)


async def test_a_cancelled_reader_loses_nothing() -> None:
    """Nor is anything left that would wake it."""
    lines = Subscription(None, forget)
    with trio.move_on_after(0):
        await anext(lines)
    lines.offer(numbered(0, 1))
    assert len((await anext(lines)).entries) == 1


async def test_many_small_blocks_come_in_few_batches() -> None:
    """A call over the socket for each line would be slow."""
    lines = Subscription(None, forget)
    for number in range(300):
        lines.offer(numbered(number, number + 1))
    batches = [await anext(lines), await anext(lines)]
    assert [len(batch.entries) for batch in batches] == [200, 100]
