"""Share named numbers of a process with the controller; names are added at any time.

The memory is a table of words of eight bytes, native byte order. Word 0 is how many
words are used, itself included. Then follow entries: the length of a key in bytes, the
key, padded to whole words, the value, and the time of its last ``set`` (both doubles).
An entry is written before word 0 counts it, so that a reader never sees half of one.
The format is like that of prometheus_client's own files.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Iterator
from typing import Final, Self

from attrs import define, field

from trio_supervisor.process.shared_memory import open_shared_memory

WORD: Final = 8
CAPACITY: Final = 2**20
"""Size of a table [B]; about 8,000 series. Pages are taken when they are first used."""
NUMBERS_PER_ENTRY: Final = 2
_MOST_KEY: Final = 8192
"""Longest key [B]."""


@define(eq=False)
class SharedValues:
    """The controller's end; made by `open_values`. A context manager."""

    descriptor: int
    """For the process to inherit."""
    _is_closed: bool = field(default=False, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> bytes:
        """Return the used part of the table; empty after `close`."""
        if self._is_closed:
            return b""
        used = int.from_bytes(os.pread(self.descriptor, WORD, 0), _ORDER)
        return os.pread(self.descriptor, min(used * WORD, CAPACITY), 0)

    def close(self) -> None:
        """Close the descriptor. May be called again."""
        if not self._is_closed:
            self._is_closed = True
            os.close(self.descriptor)


_ORDER: Final = "little" if struct.pack("=H", 1) == b"\x01\x00" else "big"


def open_values() -> SharedValues:
    """Return an empty table.

    Raises:
        OSError: the system has no memory or no descriptor for it.
    """
    return SharedValues(open_shared_memory("values", CAPACITY, is_sparse=True))


class ValueTable:
    """The process' end: adds entries, and writes their numbers."""

    def __init__(self, memory: mmap.mmap | bytearray) -> None:
        view = memoryview(memory)
        self.numbers = view.cast("d")
        """Of the whole table, by place."""
        self._bytes = view
        self._words = view.cast("q")
        self._words[0] = 1
        self._lock = threading.Lock()

    def add(self, key: bytes) -> int | None:
        """Add *key*; return the place of its value in `numbers`.

        The time of its last ``set`` is in the next place. None: the table is full.
        """
        if len(key) > _MOST_KEY:
            return None
        with self._lock:
            begin = self._words[0]
            place = begin + 1 + words_of(len(key))
            end = place + NUMBERS_PER_ENTRY
            if end * WORD > CAPACITY:
                return None
            self._words[begin] = len(key)
            at = (begin + 1) * WORD
            self._bytes[at : at + len(key)] = key
            self._words[0] = end
            return place


def use_values(descriptor: int) -> ValueTable:
    """In the process: return the table, to write; *descriptor* is closed."""
    try:
        return ValueTable(mmap.mmap(descriptor, CAPACITY, mmap.MAP_SHARED))
    finally:
        os.close(descriptor)


def words_of(size: int) -> int:
    """Return how many words *size* bytes take."""
    return -(-size // WORD)


def entries_of(data: bytes, begin: int = 1) -> Iterator[tuple[bytes, int, int]]:
    """Return the entries of a table from word *begin* on.

    Returns:
        For each, its key, the place of its value, and the word after it. A table that
        its process has spoilt ends at the first entry that is impossible.
    """
    view = memoryview(data)
    words = view[: len(data) - len(data) % WORD].cast("q")
    while begin < len(words):
        size = words[begin]
        place = begin + 1 + words_of(size)
        end = place + NUMBERS_PER_ENTRY
        if not 0 < size <= _MOST_KEY or end > len(words):
            return
        at = (begin + 1) * WORD
        yield bytes(view[at : at + size]), place, end
        begin = end
