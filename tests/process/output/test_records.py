"""Test records as parts of items."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.process.output.records import count_records, packed, records_of


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(0, 20))
def test_records_are_found_again(records: list[bytes], done: int) -> None:
    """Also in the rest of an item after some of them were sent."""
    item = b"".join(map(packed, records))
    sizes = [size for _, size in records_of(item)]
    assert sum(sizes) == len(item)
    assert all(part[-1:] == b"\n" for part in map(packed, records))
    rest = memoryview(item)[sum(sizes[:done]) :]
    assert [bytes(record) for record, _ in records_of(rest)] == records[done:]
    assert count_records(rest) == len(records[done:])
