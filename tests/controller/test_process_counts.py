"""Read the memory of one process, also while it is written or spoilt."""

from __future__ import annotations

import os
import struct
from types import SimpleNamespace
from typing import cast

import pytest

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.process_counts import ProcessCounts
from trio_supervisor.policy.client_metrics import key_of
from trio_supervisor.process.shared_counts import SharedCounts, open_counts
from trio_supervisor.process.shared_values import ValueTable, use_values

KEYS = [key_of("counter", "", name, f"{name}_total", (), "") for name in ("a", "b")]
CHILD = cast(Child, SimpleNamespace(service="web", name="web.0"))


@pytest.fixture
def shared() -> SharedCounts:
    counts = open_counts(None, has_values=True)
    assert counts is not None
    return counts


def table_of(shared: SharedCounts) -> ValueTable:
    assert shared.values is not None
    return use_values(os.dup(shared.values.descriptor))


def values_of(counts: ProcessCounts) -> dict[str, float]:
    return {s.sample: r.value for s, r in counts.readings().items()}


def test_keys_added_between_reads_are_found(shared: SharedCounts) -> None:
    table, counts = table_of(shared), ProcessCounts.of(CHILD, None, shared)
    assert values_of(counts) == {}
    expected: dict[str, float] = {}
    for key, sample in zip(KEYS, ("a_total", "b_total"), strict=True):
        place = table.add(key)
        assert place is not None
        table.numbers[place] = 2
        expected[sample] = 2
        assert values_of(counts) == expected
    counts.close()
    assert values_of(counts) == expected
    assert counts.totals() == {}


def test_table_that_is_spoilt_later_keeps_what_was_read(shared: SharedCounts) -> None:
    table, counts = table_of(shared), ProcessCounts.of(CHILD, None, shared)
    place = table.add(KEYS[0])
    assert place is not None
    table.numbers[place] = 2
    assert values_of(counts) == {"a_total": 2.0}
    assert shared.values is not None
    os.pwrite(shared.values.descriptor, struct.pack("=q", 1), 0)
    assert values_of(counts) == {"a_total": 2.0}
    counts.close()
