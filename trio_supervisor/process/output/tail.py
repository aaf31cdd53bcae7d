"""Keep the last lines of a child, for `logs` and for post-mortems."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

from attrs import define, field, frozen

from trio_supervisor.process.output.blocks import (
    Block,
    Origin,
    Piece,
    Stream,
    pieces_of,
    text_of,
)

# Enough to investigate a crash; 100 workers that print a lot need 25 MiB.
TAIL_SIZE: Final = 256 * 1024
"""Minimum size that is kept; the maximum is less than twice that [bytes]."""
TAIL_BLOCKS: Final = 1000
"""Number of blocks, and so at least of lines, that are kept."""


@frozen(kw_only=True)
class OutputLine:
    """A line that a child has printed."""

    time: float
    """[s since the epoch]"""
    stream: Stream
    text: str
    is_truncated: bool = False
    """Whether the line was too long and continues in the next one."""


@define(eq=False)
class Tail:
    """A ring buffer of blocks. Adding a block costs the same for any number of lines.

    Blocks are split into lines only on request, to keep the pump fast.
    """

    _size_limit: int = TAIL_SIZE
    _block_limit: int = TAIL_BLOCKS
    _blocks: deque[Block] = field(factory=deque, init=False)
    _size: int = field(default=0, init=False)

    def add(self, block: Block) -> None:
        """Keep *block*, and drop blocks that are too old."""
        blocks = self._blocks
        blocks.append(block)
        self._size += len(block.data)
        while (
            len(blocks) > self._block_limit
            or self._size - len(blocks[0].data) >= self._size_limit
        ):
            self._size -= len(blocks.popleft().data)

    def newest_first(
        self, origin: Origin | None = None
    ) -> Iterator[tuple[Block, Piece]]:
        """Yield lines, newest first; only those of *origin*, if given."""
        for block in reversed(self._blocks):
            if origin is None or block.origin is origin:
                for piece in reversed(list(pieces_of(block))):
                    yield block, piece

    def last(self, count: int, origin: Origin | None = None) -> list[OutputLine]:
        """Return the last *count* lines, in the order in which they were read."""
        newest = islice(self.newest_first(origin), max(0, count))
        lines = [
            OutputLine(
                time=block.time,
                stream=block.stream,
                text=text_of(piece),
                is_truncated=piece.is_cut,
            )
            for block, piece in newest
        ]
        lines.reverse()
        return lines
