"""A table of values that one process writes and another reads at any time."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.process.shared_values import (
    CAPACITY,
    WORD,
    ValueTable,
    entries_of,
    open_values,
    use_values,
)


def value_at(data: bytes, place: int) -> float:
    value: float = struct.unpack_from("=d", data, place * WORD)[0]
    return value


@given(keys=st.lists(st.binary(min_size=1, max_size=40), max_size=20, unique=True))
def test_reader_sees_what_was_added(keys: list[bytes]) -> None:
    with open_values() as shared:
        table = use_values(os.dup(shared.descriptor))
        assert list(entries_of(shared.read())) == []
        for number, key in enumerate(keys):
            place = table.add(key)
            assert place is not None
            table.numbers[place] = number
        data = shared.read()
    found = [(key, value_at(data, place)) for key, place, _ in entries_of(data)]
    assert found == [(key, float(number)) for number, key in enumerate(keys)]


def test_entries_are_read_on_from_the_last_end() -> None:
    with open_values() as shared:
        table = use_values(os.dup(shared.descriptor))
        table.add(b"first")
        [(_, _, end)] = entries_of(shared.read())
        table.add(b"second")
        assert [key for key, _, _ in entries_of(shared.read(), end)] == [b"second"]


def test_full_table_refuses() -> None:
    table = ValueTable(bytearray(CAPACITY))
    added = 0
    while table.add(b"k" * 8000) is not None:
        added += 1
    assert added == (CAPACITY // WORD - 1) // (1 + 1000 + 2)


def test_long_key_is_refused() -> None:
    assert ValueTable(bytearray(CAPACITY)).add(b"k" * 8193) is None


@pytest.mark.parametrize("used", [-1, 0, 2**60, CAPACITY])
def test_spoilt_length_of_table_is_survived(used: int) -> None:
    with open_values() as shared:
        use_values(os.dup(shared.descriptor)).add(b"key")
        os.pwrite(shared.descriptor, struct.pack("=q", used), 0)
        assert len(shared.read()) <= CAPACITY


@given(data=st.binary(max_size=400))
def test_any_bytes_are_survived(data: bytes) -> None:
    for key, place, end in entries_of(data):
        assert 0 < len(key) <= len(data)
        assert (place + 2) * WORD <= end * WORD <= len(data)


def test_closed_table_reads_as_empty() -> None:
    shared = open_values()
    shared.close()
    shared.close()
    assert shared.read() == b""
