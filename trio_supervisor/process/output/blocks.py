"""Bytes to whole lines, however they were cut on the way: nothing lost, or doubled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple, TypeAlias

from attrs import define, field, frozen

# As Docker does: what is longer is more likely data than a line somebody reads.
MAX_LINE: Final = 16 * 1024
"""A line that is longer is cut into pieces, its newline not counted [bytes]."""

Data: TypeAlias = bytes | memoryview
Stream: TypeAlias = Literal["stdout", "stderr"]


@frozen(kw_only=True)
class Origin:
    """The process that printed something."""

    name: str
    process_id: int
    generation: int
    incarnation: int


class Block(NamedTuple):
    """Whole lines that were read at a time; made for each read, so it is a tuple."""

    time: float
    """When they were read [s since the epoch]."""
    origin: Origin
    stream: Stream
    data: Data
    """Never empty. Only a line that was cut, or the last of all, has no newline."""
    is_cut: bool
    """Whether the last line goes on in the next block."""
    is_continued: bool = False
    """Whether the first line began in the previous block."""


class Piece(NamedTuple):
    """A line without its newline, or one of the pieces of a line that is too long."""

    data: bytes
    is_cut: bool
    """Whether the line goes on in the next piece."""


@define(eq=False)
class LineAssembler:
    """Takes what was read from one stream, and gives it back in whole lines."""

    _rest: bytearray = field(factory=bytearray, init=False)
    """The line that is not complete, from where it was last cut."""

    @property
    def rest(self) -> bytearray:
        """The incomplete line, from where it was last cut; not to be changed."""
        return self._rest

    def add(self, data: bytes) -> Iterator[tuple[Data, bool]]:
        """Yield what *data* completes, and whether its last line goes on."""
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
        """Yield the incomplete line as it is now; its rest follows when it comes.

        A character of UTF-8 of which only a part has been read is kept back.
        """
        size = _whole_characters(self._rest)
        if size:
            yield bytes(self._rest[:size]), True
            del self._rest[:size]

    def end(self) -> Iterator[tuple[Data, bool]]:
        """Yield what stands there without a newline."""
        if self._rest:
            yield bytes(self._rest), False
            self._rest.clear()


def _whole_characters(data: bytearray) -> int:
    """Return the length of *data* without an incomplete last character of UTF-8."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        needed = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        return len(data) - back if needed > back else len(data)
    return len(data)


def _part(data: bytes, start: int, end: int) -> Data:
    # A view preforked the copy of much; of little it would keep the whole in memory.
    if 2 * (end - start) < len(data):
        return data[start:end]
    return data if end - start == len(data) else memoryview(data)[start:end]


def pieces_of(block: Block) -> Iterator[Piece]:
    """Yield the lines of *block*, one after another: it is not split beforehand.

    The newline alone of a line that was cut just before it is no line of its own.
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
    """Where the piece that begins at *start* ends: not within a character of UTF-8."""
    end = start + MAX_LINE
    for candidate in range(end, end - 4, -1):
        if data[candidate] & 0xC0 != 0x80:
            return candidate
    return end


def count_lines(data: Data) -> int:
    """Return how many lines are in *data*, a last one without newline included."""
    data = bytes(data)
    return data.count(b"\n") + (not data.endswith(b"\n"))


def shown_of(piece: Piece) -> bytes:
    r"""Return the bytes of *piece* that are shown, without a ``\r`` at either end.

    Progress bars begin with one, and lines of Windows end with one.
    """
    return piece.data.removeprefix(b"\r").removesuffix(b"\r")


def text_of(piece: Piece) -> str:
    r"""Return *piece* as text; bytes that are not UTF-8 are shown as ``\xff``."""
    return shown_of(piece).decode("utf-8", "backslashreplace")
