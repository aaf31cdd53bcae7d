"""Put records, one for each line, together to items of a queue, and take them apart.

An item holds the records of many lines, since a lock for each line would cost more than
its record. A record is its length in four bytes, then its bytes, then a newline.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trio_supervisor.process.output.blocks import Data

_HEADER: Final = 4
_END: Final = b"\n"


def packed(record: bytes) -> bytes:
    """Return *record* as a part of an item."""
    return len(record).to_bytes(_HEADER, "big") + record + _END


def records_of(item: Data) -> Iterator[tuple[Data, int]]:
    """Yield each record of *item*, and how many bytes of the item it takes."""
    start = 0
    while start < len(item):
        begin = start + _HEADER
        end = begin + int.from_bytes(item[start:begin], "big")
        yield item[begin:end], end + len(_END) - start
        start = end + len(_END)


def count_records(item: Data) -> int:
    """Return the number of records in *item*."""
    return sum(1 for _ in records_of(item))
