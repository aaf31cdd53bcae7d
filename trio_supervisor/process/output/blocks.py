"""Assemble whole lines from reads of any size; lose and duplicate nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple, TypeAlias

from attrs import define, field, frozen

# The limit of Docker: longer lines are more likely data than text.
MAX_LINE: Final = 16 * 1024
"""Longer lines are cut into pieces; without the newline [bytes]."""

Data: TypeAlias = bytes | memoryview
Stream: TypeAlias = Literal["stdout", "stderr"]


@frozen(kw_only=True)
class Origin:
    """The process that printed a block."""

    name: str
    process_id: int
    generation: int
    incarnation: int

    @property
    def service(self) -> str:
        """The name of its service: ``web`` of ``web.0``."""
        return self.name.partition(".")[0]


class Block(NamedTuple):
    """Whole lines from one read. A tuple, since one is created for each read."""

    time: float
    """When they were read [s since the epoch]."""
    origin: Origin
    stream: Stream
    data: Data
    """Never empty. Only a cut line, or the very last one, has no newline."""
    is_cut: bool
    """Whether the last line continues in the next block."""
    is_continued: bool = False
    """Whether the first line began in the previous block."""


class Piece(NamedTuple):
    """A line without its newline, or a piece of a line that is too long."""

    data: bytes
    is_cut: bool
    """Whether the line continues in the next piece."""


@define(eq=False)
class LineAssembler:
    """Assembles the reads of one stream to whole lines."""

    _rest: bytearray = field(factory=bytearray, init=False)
    """The incomplete line, from where it was last cut."""

    @property
    def rest(self) -> bytearray:
        """The incomplete line, from where it was last cut; do not modify it."""
        return self._rest

    def add(self, data: bytes) -> Iterator[tuple[Data, bool]]:
        """Yield the lines that *data* completes, and whether the last one continues."""
        end = data.rfind(b"\n") + 1
        start = 0
        if self._rest and end:
            start = data.find(b"\n") + 1
            yield bytes(self._rest + data[:start]), False
            self._rest.clear()
        if start < end:
            yield _part(data, start, end), False
        self._rest += data[end:]
        size = 0
        while len(self._rest) - size > MAX_LINE:
            size = _cut_at(self._rest, size)
        if size:
            yield bytes(self._rest[:size]), True
            del self._rest[:size]

    def cut(self) -> Iterator[tuple[Data, bool]]:
        """Yield the incomplete line; its rest follows later.

        An incomplete UTF-8 character at its end is kept back.
        """
        size = _whole_characters(self._rest)
        if size:
            yield bytes(self._rest[:size]), True
            del self._rest[:size]

    def end(self) -> Iterator[tuple[Data, bool]]:
        """Yield the last line, if it has no newline."""
        if self._rest:
            yield bytes(self._rest), False
            self._rest.clear()


def _whole_characters(data: bytearray) -> int:
    """Return the length of *data* without an incomplete UTF-8 character at its end."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        needed = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        return len(data) - back if needed > back else len(data)
    return len(data)


def _part(data: bytes, start: int, end: int) -> Data:
    # A view saves copying a large part; of a small one it would keep all in memory.
    if 2 * (end - start) < len(data):
        return data[start:end]
    return data if end - start == len(data) else memoryview(data)[start:end]


def pieces_of(block: Block) -> Iterator[Piece]:
    """Yield the lines of *block* lazily.

    A newline that directly follows a cut does not count as an empty line.
    """
    data = bytes(block.data)
    start = 1 if block.is_continued and data.startswith(b"\n") else 0
    if block.is_continued and data.startswith(b"\r\n"):
        start = 2
    while start < len(data):
        newline = data.find(b"\n", start)
        end = len(data) if newline < 0 else newline
        while end - start > MAX_LINE:
            cut = _cut_at(data, start)
            yield Piece(data[start:cut], True)
            start = cut
        yield Piece(data[start:end], block.is_cut and newline < 0)
        start = end + 1


def _cut_at(data: bytes | bytearray, start: int) -> int:
    """Return the end of the piece at *start*, never inside a UTF-8 character."""
    end = start + MAX_LINE
    for candidate in range(end, end - 4, -1):
        if data[candidate] & 0xC0 != 0x80:
            return candidate
    return end


def count_lines(data: Data) -> int:
    """Return the number of lines in *data*; a last one without newline counts."""
    data = bytes(data)
    return data.count(b"\n") + (not data.endswith(b"\n"))


def shown_of(piece: Piece) -> bytes:
    r"""Return the bytes of *piece* that are shown, without ``\r`` at either end.

    Progress bars begin with one, and Windows lines end with one.
    """
    return piece.data.removeprefix(b"\r").removesuffix(b"\r")


def text_of(piece: Piece) -> str:
    r"""Return *piece* as text; bytes that are not UTF-8 are shown as ``\xff``."""
    return shown_of(piece).decode("utf-8", "backslashreplace")
