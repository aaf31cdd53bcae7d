"""Test the parsers and sums of what processes use."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.policy.process_usage import (
    UsageSample,
    copy_details,
    cpu_seconds_since,
    find_trees,
    parse_io,
    parse_stat,
    parse_switches,
    total,
)

STAT = (
    b"42 (a) b (c) S 7 42 42 0 -1 4194560 1500 900 3 2 250 50 11 12 20 0 5 0 1234 "
    b"9000000 2048 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0\n"
)


def sample(process_id: int, parent_id: int = 1, **figures: float) -> UsageSample:
    values: dict[str, Any] = {"started_at": 1.0, "cpu_time": 0.0, **figures}
    return UsageSample(
        process_id=process_id,
        parent_id=parent_id,
        state="S",
        rss=10,
        threads=1,
        **values,
    )


def test_stat_of_a_program_with_parentheses_in_its_name_is_parsed() -> None:
    assert parse_stat(42, STAT, ticks=100, page=4096) == UsageSample(
        process_id=42,
        parent_id=7,
        state="S",
        started_at=12.34,
        cpu_time=3.0,
        rss=2048 * 4096,
        threads=5,
        minor_faults=1500,
        major_faults=3,
    )


@given(st.integers(0, STAT.index(b" 2048")))
def test_cut_stat_is_no_sample(length: int) -> None:
    assert parse_stat(42, STAT[:length], ticks=100, page=4096) is None


def test_switches_and_io_are_parsed_or_unknown() -> None:
    text = b"Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n"
    assert parse_switches(text) == (12, 3)
    assert parse_switches(b"") is None
    assert parse_switches(b"Name:\tx\n") is None
    assert parse_io(b"rchar: 1\nread_bytes: 4096\nwrite_bytes: 8192\n") == (4096, 8192)
    assert parse_io(b"") is None


@given(st.dictionaries(st.integers(2, 20), st.integers(1, 20)), st.sets(st.integers()))
def test_each_process_is_in_the_tree_of_its_nearest_root(
    parents: dict[int, int], roots: set[int]
) -> None:
    roots |= set(list(parents)[:2])
    samples = {pid: sample(pid, parent) for pid, parent in parents.items()}

    def root_of(process_id: int) -> int | None:
        seen = set[int]()
        while process_id in samples and process_id not in seen:
            if process_id in roots:
                return process_id
            seen.add(process_id)
            process_id = parents[process_id]
        return None

    found = {
        root: {each.process_id for each in tree}
        for root, tree in find_trees(samples, roots).items()
    }
    assert found == {
        root: {pid for pid in samples if root_of(pid) == root}
        for root in roots & samples.keys()
    }


def test_cpu_counts_new_processes_whole_and_exited_ones_not() -> None:
    before = {1: sample(1, cpu_time=5.0), 2: sample(2, cpu_time=100.0)}
    reused = sample(2, cpu_time=0.5, started_at=9.0)
    tree = [sample(1, cpu_time=5.25), reused, sample(3, cpu_time=1.0)]
    assert cpu_seconds_since(before, tree) == 1.75


def test_details_are_copied_from_the_same_process_only() -> None:
    before = {1: sample(1, descriptors=3, read_bytes=9), 2: sample(2, descriptors=5)}
    same, reused, new = sample(1), sample(2, started_at=9.0), sample(3)
    for each in (same, reused, new):
        copy_details(before, each)
    assert (same.descriptors, same.read_bytes) == (3, 9)
    assert reused.descriptors is None
    assert new.descriptors is None


def test_total_of_what_is_unknown_of_all_is_unknown() -> None:
    found = total([sample(1, descriptors=3), sample(2)])
    assert (found["rss"], found["descriptors"], found["pss"]) == (20, 3, None)
