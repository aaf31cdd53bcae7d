"""Orders over random services, judged by what they promise, not how they are made."""

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
"""What needs what, and some of the names."""
LATE, EARLY, READY, DONE, FAILED = Standing


@st.composite
def acyclic(draw: st.DrawFn) -> Needed:
    """Services, each of which needs some of those before it, told in any order."""
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
    """Services, and some of them."""
    needs = draw(acyclic())
    names = draw(st.lists(st.sampled_from(sorted(needs)), unique=True)) if needs else []
    return needs, names


def leads(needs: Needed, start: str, goal: str, over: set[str]) -> bool:
    """Whether *start* needs *goal*, by walking every way there is."""
    return any(
        condition in over and (other == goal or leads(needs, other, goal, over))
        for other, condition in needs[start].items()
    )


EVERY = set[str](CONDITIONS)


@given(some_of())
def test_nothing_is_started_before_what_it_needs(
    story: Story,
) -> None:
    """Not even where the way leads over services that are not started."""
    needs, names = story
    waves = start_waves(names, needs)
    assert sorted(name for wave in waves for name in wave) == sorted(names)
    place = {name: index for index, wave in enumerate(waves) for name in wave}
    for name in names:
        needed = [place[o] for o in names if leads(needs, name, o, EVERY)]
        # As early as can be, too: right after the last of what it needs.
        assert place[name] == max(needed, default=-1) + 1


@given(some_of())
def test_stop_order_waits_for_all_that_need_it_and_for_nothing_else(
    story: Story,
) -> None:
    """Independent services have no order, wherever they were declared."""
    needs, names = story
    order = stop_order(names, needs)
    assert list(order) == names
    for name in names:
        assert order[name] == {o for o in names if leads(needs, o, name, EVERY)}


def test_stop_order_of_independent_services_is_none() -> None:
    assert stop_order("abc", {}) == {"a": set(), "b": set(), "c": set()}


def test_merged_needs_hold_what_both_declare() -> None:
    old: Needed = {"web": {"db": "ready"}, "db": {}}
    new: Needed = {"web": {"cache": "started"}, "cache": {"db": "ready"}, "db": {}}
    assert merged_needs(old, new) == {
        "web": {"db": "ready", "cache": "started"},
        "cache": {"db": "ready"},
        "db": {},
    }


def test_merged_needs_that_contradict_are_the_new_ones() -> None:
    old: Needed = {"web": {"db": "ready"}, "db": {}}
    new: Needed = {"web": {}, "db": {"web": "ready"}}
    assert merged_needs(old, new) == new


@given(some_of())
def test_all_that_is_needed_is_found(story: Story) -> None:
    """Directly or not; the services themselves are not among it."""
    needs, names = story
    expected = {o for o in needs for name in names if leads(needs, name, o, EVERY)}
    assert needs_of(names, needs) == expected - set(names)


@given(some_of())
def test_all_that_has_to_stop_before_is_found(story: Story) -> None:
    """Who waited for an exit only goes on."""
    needs, names = story
    over = {"started", "ready"}
    expected = {o for o in needs for name in names if leads(needs, o, name, over)}
    assert dependents(names, needs) == expected - set(names)


@given(acyclic())
def test_what_has_no_cycle_has_none(needs: Needed) -> None:
    """However many ways lead to one service."""
    assert find_cycle(needs) is None


@given(
    st.dictionaries(
        st.sampled_from("abcde"),
        st.dictionaries(st.sampled_from("abcde"), st.sampled_from(CONDITIONS)),
    )
)
def test_a_cycle_is_told_as_it_is_needed(needs: Needed) -> None:
    """Each needs the next, and the last is the first."""
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


def test_a_cycle_is_told_in_the_direction_of_the_need() -> None:
    """From whom waits to what it waits for, not the other way."""
    cycle = find_cycle({"a": {"b": "ready"}, "b": {"c": "ready"}, "c": {"a": "ready"}})
    assert cycle is not None
    assert "".join(cycle) in {"abca", "bcab", "cabc"}


def test_a_long_chain_is_no_problem() -> None:
    """Longer than the interpreter's stack is deep."""
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
def test_one_worker_meets_what_the_table_says(
    standing: Standing, condition: Condition
) -> None:
    """What ended well for good is as good as ready; what failed was started."""
    assert is_met(condition, [standing]) is (condition in MEETS[standing])


@given(st.sampled_from(CONDITIONS), st.lists(st.sampled_from(Standing)))
def test_every_worker_has_to_meet_it(
    condition: Condition, workers: list[Standing]
) -> None:
    """A service without workers meets everything: nobody waits for nothing."""
    met = [condition in MEETS[standing] for standing in workers]
    assert is_met(condition, workers) is (False not in met)


def test_what_is_unmet_is_told_by_name() -> None:
    """In the order of the declaration, with what is waited for."""
    needs: Needed = {
        "web": {"redis": "ready", "migrate": "exited_ok", "log": "started"}
    }
    standing = {"redis": [READY, EARLY], "migrate": [READY], "log": [EARLY]}
    assert unmet("web", needs, standing) == (
        ("redis", "ready"),
        ("migrate", "exited_ok"),
    )
    assert unmet("redis", needs, standing) == ()


def test_a_standing_that_is_missing_is_a_bug_of_the_caller() -> None:
    """It is not taken for met."""
    with pytest.raises(KeyError, match="redis"):
        unmet("web", {"web": {"redis": "started"}}, {})
