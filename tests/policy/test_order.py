"""Test properties of start and stop orders with random dependencies."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.policy.order import (
    CONDITIONS,
    Condition,
    Standing,
    dependents,
    find_cycle,
    is_met,
    merged_needs,
    needs_of,
    start_waves,
    stop_order,
    unmet,
)

Needed: TypeAlias = dict[str, dict[str, Condition]]
Story: TypeAlias = tuple[Needed, list[str]]
"""Dependencies, and some of the names in them."""
LATE, EARLY, READY, DONE, FAILED = Standing


@st.composite
def acyclic(draw: st.DrawFn) -> Needed:
    """Draw services that depend on earlier ones, in random order."""
    names = [f"s{index}" for index in range(draw(st.integers(0, 9)))]
    needs: Needed = {}
    for index, name in enumerate(names):
        needed = st.sets(st.sampled_from(names[:index])) if index else st.just(set())
        needs[name] = {
            other: draw(st.sampled_from(CONDITIONS)) for other in sorted(draw(needed))
        }
    return {name: needs[name] for name in draw(st.permutations(names))}


@st.composite
def some_of(draw: st.DrawFn) -> Story:
    """Draw services, and some of their names."""
    needs = draw(acyclic())
    names = draw(st.lists(st.sampled_from(sorted(needs)), unique=True)) if needs else []
    return needs, names


def leads(needs: Needed, start: str, goal: str, over: set[str]) -> bool:
    """Return whether *start* depends on *goal*, by following every path."""
    return any(
        condition in over and (other == goal or leads(needs, other, goal, over))
        for other, condition in needs[start].items()
    )


EVERY = set[str](CONDITIONS)


@given(some_of())
def test_start_waves_start_dependencies_first(
    story: Story,
) -> None:
    """Even if they are connected only by services that are not started."""
    needs, names = story
    waves = start_waves(names, needs)
    assert sorted(name for wave in waves for name in wave) == sorted(names)
    place = {name: index for index, wave in enumerate(waves) for name in wave}
    for name in names:
        needed = [place[o] for o in names if leads(needs, name, o, EVERY)]
        # As early as can be, too: right after the last of what it needs.
        assert place[name] == max(needed, default=-1) + 1


@given(some_of())
def test_stop_order_waits_for_dependents_only(
    story: Story,
) -> None:
    """Independent services have no order."""
    needs, names = story
    order = stop_order(names, needs)
    assert list(order) == names
    for name in names:
        assert order[name] == {o for o in names if leads(needs, o, name, EVERY)}


def test_stop_order_of_independent_services_is_empty() -> None:
    assert stop_order("abc", {}) == {"a": set(), "b": set(), "c": set()}


def test_merged_needs_contain_both_declarations() -> None:
    old: Needed = {"web": {"db": "ready"}, "db": {}}
    new: Needed = {"web": {"cache": "started"}, "cache": {"db": "ready"}, "db": {}}
    assert merged_needs(old, new) == {
        "web": {"db": "ready", "cache": "started"},
        "cache": {"db": "ready"},
        "db": {},
    }


def test_merged_needs_with_a_cycle_are_the_new_ones() -> None:
    old: Needed = {"web": {"db": "ready"}, "db": {}}
    new: Needed = {"web": {}, "db": {"web": "ready"}}
    assert merged_needs(old, new) == new


@given(some_of())
def test_needs_of_finds_indirect_dependencies(story: Story) -> None:
    """The services themselves are not included."""
    needs, names = story
    expected = {o for o in needs for name in names if leads(needs, name, o, EVERY)}
    assert needs_of(names, needs) == expected - set(names)


@given(some_of())
def test_dependents_finds_services_that_stop_first(story: Story) -> None:
    """Services that only waited for an exit keep running."""
    needs, names = story
    over = {"started", "ready"}
    expected = {o for o in needs for name in names if leads(needs, o, name, over)}
    assert dependents(names, needs) == expected - set(names)


@given(acyclic())
def test_find_cycle_without_cycle_is_none(needs: Needed) -> None:
    """Even if many paths lead to one service."""
    assert find_cycle(needs) is None


@given(
    st.dictionaries(
        st.sampled_from("abcde"),
        st.dictionaries(st.sampled_from("abcde"), st.sampled_from(CONDITIONS)),
    )
)
def test_find_cycle_returns_a_chain_of_needs(needs: Needed) -> None:
    """Each depends on the next, and the last is the first."""
    complete = {name: needs.get(name, {}) for name in "abcde"}
    cycle = find_cycle(needs)
    if cycle is None:
        start_waves(complete, needs)
        return
    assert cycle[0] == cycle[-1]
    assert len(set(cycle)) == len(cycle) - 1
    assert all(later in needs[one] for one, later in pairwise(cycle))
    with pytest.raises(ValueError, match="cycle"):
        start_waves(complete, needs)


def test_find_cycle_goes_from_dependent_to_dependency() -> None:
    cycle = find_cycle({"a": {"b": "ready"}, "b": {"c": "ready"}, "c": {"a": "ready"}})
    assert cycle is not None
    assert "".join(cycle) in {"abca", "bcab", "cabc"}


def test_long_chain_of_needs_causes_no_recursion() -> None:
    """The chain is longer than the recursion limit."""
    names = [f"s{index}" for index in range(1_500)]
    needs: Needed = {b: {a: "ready"} for a, b in pairwise(names)}
    assert find_cycle(needs) is None
    assert [next(iter(wave)) for wave in start_waves(names, needs)] == names
    assert needs_of([names[-1]], needs) == set(names[:-1])


# What a worker that stands so meets.
MEETS: dict[Standing, set[Condition]] = {
    LATE: set(),
    EARLY: {"started"},
    READY: {"started", "ready"},
    DONE: {"started", "ready", "exited_ok"},
    FAILED: {"started"},
}


@pytest.mark.parametrize("standing", Standing)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_is_met_for_one_worker_agrees_with_the_table(
    standing: Standing, condition: Condition
) -> None:
    """EXITED_OK counts as ready, and FAILED as started."""
    assert is_met(condition, [standing]) is (condition in MEETS[standing])


@given(st.sampled_from(CONDITIONS), st.lists(st.sampled_from(Standing)))
def test_is_met_requires_every_worker(
    condition: Condition, workers: list[Standing]
) -> None:
    """A service without workers meets every condition."""
    met = [condition in MEETS[standing] for standing in workers]
    assert is_met(condition, workers) is (False not in met)


def test_unmet_names_services_and_conditions() -> None:
    """In the order of declaration."""
    needs: Needed = {
        "web": {"redis": "ready", "migrate": "exited_ok", "log": "started"}
    }
    standing = {"redis": [READY, EARLY], "migrate": [READY], "log": [EARLY]}
    assert unmet("web", needs, standing) == (
        ("redis", "ready"),
        ("migrate", "exited_ok"),
    )
    assert unmet("redis", needs, standing) == ()


def test_unmet_with_a_missing_standing_raises() -> None:
    """The condition does not count as met."""
    with pytest.raises(KeyError, match="redis"):
        unmet("web", {"web": {"redis": "started"}}, {})
