"""Summaries and comparisons of heap dumps, against a few sets."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_supervisor.diagnostics.heap.heap_compare import compare_heaps, summarize_heap
from trio_supervisor.diagnostics.memory.sums import Sums
from trio_supervisor.errors import HeapFileError
from trio_supervisor.wire.codec import parse_result, to_fields
from trio_supervisor.wire.memory_reports import (
    HEAP_FORMAT,
    Amount,
    HeapComparison,
    HeapSummary,
    ObjectGroup,
)

Heap = dict[int, tuple[str, int]]
"""Types and sizes by address."""

heaps = st.dictionaries(
    st.integers(0, 60).map(lambda n: 0x7F00_0000_0000 + n * 1616),
    st.tuples(st.sampled_from(["dict", "app.A", "app.B"]), st.integers(0, 1000)),
)

HEADER = {"format": HEAP_FORMAT, "process_id": 7, "taken_at": 1.5, "python": "3"}


def lines_for(heap: Heap, process_id: int = 7) -> list[str]:
    objects = []
    for address, (type_, size) in heap.items():
        module, _, name = type_.rpartition(".")
        objects.append(
            {
                "address": address,
                "type": name,
                "module": module or "builtins",
                "size": size,
                "referents": [],
            }
        )
    end = {"objects": len(heap), "memory": sum(size for _, size in heap.values())}
    every = [{**HEADER, "process_id": process_id}, *objects, end]
    return [json.dumps(line) for line in every]


def write(path: Path, lines: Iterable[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def as_dict(groups: tuple[ObjectGroup, ...]) -> dict[str, tuple[int, int]]:
    return {group.name: (group.memory, group.count) for group in groups}


def sums(objects: Iterable[tuple[str, int]]) -> dict[str, tuple[int, int]]:
    memory, count = Counter[str](), Counter[str]()
    for type_, size in objects:
        memory[type_] += size
        count[type_] += 1
    return {type_: (memory[type_], count[type_]) for type_ in count}


def total(objects: Iterable[tuple[str, int]]) -> Amount:
    sizes = [size for _, size in objects]
    return Amount(memory=sum(sizes), count=len(sizes))


@settings(deadline=None)  # it opens many files
@given(heap=heaps)
def test_heap_summary_adds_up(heap: Heap) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = summarize_heap(write(Path(folder, "heap"), lines_for(heap)))
    assert found.total == total(heap.values())
    assert as_dict(found.by_type) == sums(heap.values())
    by_module = sums(
        (type_.rpartition(".")[0] or "builtins", size) for type_, size in heap.values()
    )
    assert as_dict(found.by_module) == by_module
    assert parse_result(to_fields(found), HeapSummary) == found


@settings(deadline=None)  # it opens many files
@given(st.lists(heaps, min_size=2, max_size=3))
def test_heap_comparison_agrees_with_sets(dumps: list[Heap]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            write(Path(folder, str(number)), lines_for(heap))
            for number, heap in enumerate(dumps)
        ]
        found = compare_heaps(paths)
    first, second, last = dumps[0], dumps[1], dumps[-1]

    def is_in(heap: Heap, address: int, type_: str) -> bool:
        return address in heap and heap[address][0] == type_

    new = {a: o for a, o in second.items() if not is_in(first, a, o[0])}
    gone = {a: o for a, o in first.items() if not is_in(second, a, o[0])}
    stayed = [last[a] for a, o in new.items() if is_in(last, a, o[0])]
    assert as_dict(found.new_by_type) == sums(new.values())
    assert found.new == total(new.values())
    assert found.gone == total(gone.values())
    if len(dumps) == 3:
        assert as_dict(found.stayed_by_type) == sums(stayed)
        assert found.stayed == total(stayed)
    else:
        assert found.stayed is None
    before, after = total(first.values()), total(last.values())
    assert sum(group.memory for group in found.grown) == after.memory - before.memory
    assert sum(group.count for group in found.grown) == after.count - before.count
    assert parse_result(to_fields(found), HeapComparison) == found


@given(
    st.lists(st.tuples(st.text(max_size=2), st.integers(0, 99), st.integers(0, 9))),
    st.integers(0, 5),
)
def test_groups_keep_the_total(added: list[tuple[str, int, int]], limit: int) -> None:
    found = Sums()
    for key, memory, count in added:
        found.add(key, memory, count)
    groups = found.groups(limit)
    assert sum(group.memory for group in groups) == sum(m for _, m, _ in added)
    assert sum(group.count for group in groups) == sum(c for _, _, c in added)
    assert len(groups) <= limit + 1
    shown = [group.memory for group in groups[:limit]]
    assert shown == sorted(shown, reverse=True)


GOOD = lines_for({160: ("dict", 10), 320: ("app.A", 20)})


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        pytest.param([], "not a heap dump", id="empty"),
        pytest.param(GOOD[1:], "not a heap dump", id="no header"),
        pytest.param(["{}", *GOOD[1:]], "not a heap dump", id="no format"),
        pytest.param(GOOD[:-1], "line 4: the last line is missing", id="no end"),
        pytest.param(
            [*GOOD, "{}"], "line 5: there are lines after", id="after the end"
        ),
        pytest.param([GOOD[0], "{", *GOOD[2:]], "line 2: not JSON", id="no JSON"),
        pytest.param([GOOD[0], "[]", *GOOD[2:]], "line 2: not an object", id="array"),
        pytest.param(
            [GOOD[0], "{}", *GOOD[2:]], "line 2: 'address' is None", id="no address"
        ),
        pytest.param(
            [GOOD[0], GOOD[1].replace("160", '"160"'), *GOOD[2:]],
            "line 2: 'address' is '160', not of type int",
            id="text for a number",
        ),
        pytest.param(
            [GOOD[0], GOOD[1].replace("10", "-10"), *GOOD[2:]],
            "line 2: a negative number",
            id="negative size",
        ),
        pytest.param(
            [GOOD[0], GOOD[1].replace("160", str(2**64)), *GOOD[2:]],
            "line 2: ",
            id="no address of any machine",
        ),
        pytest.param(
            [*GOOD[:2], GOOD[3]],
            "line 3: the totals do not match",
            id="a line is missing",
        ),
    ],
)
def test_invalid_line_is_named(tmp_path: Path, lines: list[str], problem: str) -> None:
    good = write(tmp_path / "good", GOOD)
    bad = write(tmp_path / "bad", lines)
    for read in (lambda: summarize_heap(bad), lambda: compare_heaps([good, bad])):
        with pytest.raises(HeapFileError, match=problem) as caught:
            read()
        assert str(caught.value).startswith(bad)


@pytest.mark.parametrize("size", range(1, len("\n".join(GOOD)), 7))
def test_truncated_dump_is_incomplete(tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut"
    path.write_text("\n".join(GOOD)[:size])
    with pytest.raises(HeapFileError, match="incomplete"):
        summarize_heap(str(path))


def test_missing_dump_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HeapFileError, match="No such file"):
        summarize_heap(str(tmp_path / "nothing"))


def test_dumps_of_different_processes_are_refused(tmp_path: Path) -> None:
    """Their addresses have nothing to do with each other."""
    one = write(tmp_path / "one", lines_for({}, process_id=1))
    two = write(tmp_path / "two", lines_for({}, process_id=2))
    with pytest.raises(HeapFileError, match="different processes"):
        compare_heaps([one, two])


@pytest.mark.parametrize("count", [0, 1, 4])
def test_only_two_or_three_dumps_are_compared(tmp_path: Path, count: int) -> None:
    path = write(tmp_path / "heap", GOOD)
    with pytest.raises(HeapFileError, match=f"two or three .* not {count}"):
        compare_heaps([path] * count)
