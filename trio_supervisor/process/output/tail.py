"""The last lines of a child, kept for when somebody asks, or when it crashes."""

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

# What one looks at after a crash; with 100 workers that print a lot it is 25 MiB.
TAIL_SIZE: Final = 256 * 1024
"""How much is kept at least, where there was so much; less than twice that [bytes]."""
TAIL_BLOCKS: Final = 1000
"""A child that prints little at a time has at least so many lines."""


@frozen(kw_only=True)
class OutputLine:
    """A line that was printed."""

    time: float
    """[s since the epoch]"""
    stream: Stream
    text: str
    is_truncated: bool = False
    """Whether the line goes on in the next one, for it was too long."""


@define(eq=False)
class Tail:
    """A ring of blocks. Adding costs the same for one line and for thousands.

    They are split only when somebody asks: the pump has no time for it.
    """

    _size_limit: int = TAIL_SIZE
    _block_limit: int = TAIL_BLOCKS
    _blocks: deque[Block] = field(factory=deque, init=False)
    _size: int = field(default=0, init=False)

    def add(self, block: Block) -> None:
        """Keep *block*, and forget what is too old."""
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
        """Yield lines, the last one first; those of *origin* only, where given."""
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
