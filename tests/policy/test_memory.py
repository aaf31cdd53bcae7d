"""Test verdicts on memory against an oracle that keeps every sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from hypothesis import example, given
from hypothesis import strategies as st

from trio_supervisor.policy.memory import (
    BelowBaseline,
    GrownBeyond,
    HostShort,
    Leaking,
    MemoryHistory,
    MemoryUse,
    TooLarge,
    TotalTooLarge,
    largest,
    mebibytes,
    total_size,
)

Story: TypeAlias = Sequence[tuple[int, bool]]
"""Samples of one process: its size, and whether its restart was futile."""

# Few and small, so that limits and marks are hit exactly, and passed by one.
sizes = st.integers(0, 12)
stories: st.SearchStrategy[Story] = st.lists(st.tuples(sizes, st.booleans()))
settings = st.fixed_dictionaries(
    {
        "maximum_size_limit": st.none() | sizes,
        "threshold_size": st.integers(0, 4),
        "increase_limit": st.none() | st.integers(0, 3),
        "growth_limit": st.none() | st.integers(0, 6),
    }
)
uses = st.builds(
    lambda size, shared: MemoryUse(size=size, private=max(0, size - shared)),
    sizes,
    sizes,
)


def marks(sizes: Sequence[int], threshold: int) -> list[int]:
    """Return every value of the high-water mark, beginning with the first sample."""
    found = list(sizes[:1])
    for size in sizes[1:]:
        if size - threshold > found[-1]:
            found.append(size)
    return found


def baselines(story: Story, limit: int | None) -> list[int]:
    """Return the sizes at which a restart would not have helped."""
    if limit is None:
        return []
    return [size for size, was_futile in story if size > limit and was_futile]


def expected(story: Story, settings: dict[str, Any]) -> str | None:
    """Return the verdict after all samples of *story*."""
    limit, threshold = settings["maximum_size_limit"], settings["threshold_size"]
    size, was_futile = story[-1]
    if limit is not None and size > limit:
        before = baselines(story[:-1], limit)
        if was_futile:
            return None if before else "BelowBaseline"
        if not before or size - threshold > before[-1]:
            return "TooLarge"
    start = max(size for size, _ in story[:2])
    growth = settings["growth_limit"]
    if growth is not None and size > start + growth:
        return "GrownBeyond"
    increases = len(marks([s for s, _ in story], threshold)) - 1
    limit_of_increases = settings["increase_limit"]
    if limit_of_increases is not None and increases >= limit_of_increases:
        return "Leaking"
    return None


@given(stories, settings)
@example(
    [(5, False), (5, True), (5, False), (6, False), (9, False)],
    {
        "maximum_size_limit": 4,
        "threshold_size": 1,
        "increase_limit": None,
        "growth_limit": None,
    },
)
def test_verdicts_agree_with_the_oracle(story: Story, settings: dict[str, Any]) -> None:
    history = MemoryHistory(**settings)
    for count, (size, was_futile) in enumerate(story, start=1):
        verdict = history.add(MemoryUse(size=size), was_futile=was_futile)

        name = None if verdict is None else type(verdict).__name__
        assert name == expected(story[:count], settings)
        assert history.sample_count == count
        seen = marks([s for s, _ in story[:count]], settings["threshold_size"])
        assert history.maximum_size == seen[-1]
        assert history.increase_count == len(seen) - 1


@given(stories, settings)
def test_verdict_has_the_sizes_that_led_to_it(
    story: Story, settings: dict[str, Any]
) -> None:
    history = MemoryHistory(**settings)
    for size, was_futile in story:
        match history.add(MemoryUse(size=size), was_futile=was_futile):
            case TooLarge() | BelowBaseline() as verdict:
                assert (verdict.size, verdict.limit) == (
                    size,
                    settings["maximum_size_limit"],
                )
            case GrownBeyond() as grown:
                assert (grown.size, grown.limit) == (size, settings["growth_limit"])
                assert grown.baseline == history.start_size
            case Leaking() as leaking:
                assert (leaking.size, leaking.increases) == (
                    size,
                    history.increase_count,
                )


@given(st.lists(sizes, min_size=1), settings)
def test_limit_below_the_baseline_is_reported_once(
    sizes: list[int], settings: dict[str, Any]
) -> None:
    """However many samples are taken of a process whose restart did not help."""
    history = MemoryHistory(**settings)
    verdicts = [history.add(MemoryUse(size=size), was_futile=True) for size in sizes]

    assert sum(isinstance(verdict, BelowBaseline) for verdict in verdicts) <= 1
    assert not any(isinstance(verdict, TooLarge) for verdict in verdicts)


@given(st.lists(uses))
def test_total_size_is_private_parts_plus_largest_shared_part(
    uses: list[MemoryUse],
) -> None:
    private = 0
    shared = 0
    for use in uses:
        assert use.private is not None
        private += use.private
        if use.size - use.private > shared:
            shared = use.size - use.private
    assert total_size(uses) == private + shared


def test_total_size_is_the_sum_of_proportional_parts_where_known() -> None:
    known = [MemoryUse(size=9, private=4, proportional=6)] * 3
    assert total_size(known) == 18
    unknown = MemoryUse(size=9, private=4)
    assert total_size([*known, unknown]) == 4 * 4 + 5
    assert total_size([]) == 0


@given(st.dictionaries(st.text(max_size=2), uses))
def test_largest_has_the_most_private_memory(uses: dict[str, MemoryUse]) -> None:
    found = largest(uses)

    if found is None:
        assert not uses
        return
    most = max(use.private or 0 for use in uses.values())
    assert uses[found].private == most


def test_size_without_private_part_counts_as_private() -> None:
    assert MemoryUse(size=7).shared == 0
    assert total_size([MemoryUse(size=7), MemoryUse(size=2, private=1)]) == 9


def test_str_of_a_verdict_names_the_setting() -> None:
    size, limit = 600 * 2**20, 500 * 2**20

    assert mebibytes(3 * 2**19) == "1.5 MiB"
    assert str(TooLarge(size=size, limit=limit)) == (
        "its memory of 600.0 MiB exceeds maximum_size_limit=500.0 MiB"
    )
    assert str(BelowBaseline(size=size, limit=limit)).startswith(
        "maximum_size_limit=500.0 MiB is below the 600.0 MiB that it needs right after"
    )
    assert str(GrownBeyond(size=size, baseline=limit, limit=limit)) == (
        "its memory has grown from 500.0 MiB right after its start to 600.0 MiB "
        "(growth_limit=500.0 MiB)"
    )
    assert str(Leaking(size=size, increases=3)) == (
        "its memory reached a new maximum 3 times (increase_limit), now 600.0 MiB"
    )
    assert str(TotalTooLarge(total=size, limit=limit)).startswith(
        "all workers together use 600.0 MiB (total_size_limit=500.0 MiB), and it has"
    )
    assert str(HostShort(free=limit, minimum=size)).startswith(
        "the host has 500.0 MiB of available memory (free_size_minimum=600.0 MiB)"
    )
