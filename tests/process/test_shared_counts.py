"""Which memory a process gets to count in."""

from __future__ import annotations

import os

import pytest

from trio_supervisor.process.shared_counts import open_counts


def test_process_without_metrics_has_none() -> None:
    assert open_counts(None, has_values=False) is None


@pytest.mark.parametrize(
    ("slots", "has_values", "count"), [(3, False, 1), (None, True, 1), (3, True, 2)]
)
def test_descriptors_are_open_until_closed(
    slots: int | None, has_values: bool, count: int
) -> None:
    counts = open_counts(slots, has_values=has_values)
    assert counts is not None
    with counts:
        descriptors = counts.descriptors
        assert len(descriptors) == count
        assert [os.fstat(each).st_size for each in descriptors]
    for each in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(each)
