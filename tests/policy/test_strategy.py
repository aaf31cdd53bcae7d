"""Test restarts in groups against an oracle that keeps the whole history."""

from __future__ import annotations

from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.policy.strategy import (
    STRATEGIES,
    GiveUpAll,
    GroupFailure,
    GroupNode,
    Outcome,
    RestartTogether,
    Tree,
)

Path: TypeAlias = tuple[int, ...]
"""Indexes from the root, which is ()."""
Crash: TypeAlias = tuple[float, int, bool]
"""Time since the last crash [s], number of the service, whether it is exhausted."""

shapes = st.recursive(
    st.just("service"), lambda inner: st.lists(inner, max_size=3), max_leaves=7
)


@st.composite
def groups(draw: st.DrawFn) -> GroupNode:
    """Draw a root with services s0, s1 … at any depth, and any limits."""
    names = iter(f"s{index}" for index in range(100))

    def grow(shape: object, path: str) -> GroupNode:
        children = shape if isinstance(shape, list) else [shape]
        return GroupNode(
            name=path,
            children=tuple(
                grow(child, f"{path}.{index}")
                if isinstance(child, list)
                else next(names)
                for index, child in enumerate(children)
            ),
            strategy=draw(st.sampled_from(STRATEGIES)),
            intensity=draw(st.none() | st.integers(0, 3)),
            period=draw(st.sampled_from([0.5, 2.0, 5.0])),
        )

    return grow(draw(shapes), "root")


crashes = st.lists(
    st.tuples(
        st.integers(0, 8).map(lambda quarters: quarters / 4),
        st.integers(0, 99),
        st.booleans() | st.just(False),
    ),
    max_size=25,
)


class Oracle:
    """Keeps every crash and every reset, and adds them up each time."""

    def __init__(self, root: GroupNode) -> None:
        self.root = root
        self.counts: list[tuple[int, float, Path]] = []
        self.resets: list[tuple[int, Path]] = []
        self.clock = 0

    def at(self, path: Path) -> GroupNode | str:
        node: GroupNode | str = self.root
        for index in path:
            assert isinstance(node, GroupNode)
            node = node.children[index]
        return node

    def below(self, path: Path) -> list[Path]:
        """Return all paths from *path* down, itself first, in order."""
        node = self.at(path)
        if isinstance(node, str):
            return [path]
        inner = [self.below((*path, index)) for index in range(len(node.children))]
        return [path, *(each for paths in inner for each in paths)]

    def within(self, path: Path, now: float, period: float) -> int:
        reset = max(
            (
                when
                for when, where in self.resets
                if where == path[: len(where)]  # it, or something around it
            ),
            default=-1,
        )
        return sum(
            when > reset and where == path and now - time <= period
            for when, time, where in self.counts
        )

    def failed(self, service: str, now: float, is_exhausted: bool) -> Outcome:
        child = next(path for path in self.below(()) if self.at(path) == service)
        failures: list[GroupFailure] = []
        while True:
            self.clock += 1
            group = child[:-1]
            node = self.at(group)
            assert isinstance(node, GroupNode)
            if not is_exhausted:
                self.counts.append((self.clock, now, group))
                restarts = self.within(group, now, node.period)
                if node.intensity is None or restarts <= node.intensity:
                    break
                failures.append(GroupFailure(node.name, restarts - 1, node.period))
            else:
                failures.append(GroupFailure(node.name, None, node.period))
            if group == ():
                return GiveUpAll(tuple(failures))
            child, is_exhausted = group, False
        is_service = isinstance(self.at(child), str)
        count = len(node.children)
        places = {
            "one_for_one": [] if is_service else [child[-1]],
            "one_for_all": range(count),
            "rest_for_one": range(child[-1] + is_service, count),
        }[node.strategy]
        restarted = [path for index in places for path in self.below((*group, index))]
        self.resets += [(self.clock, path) for path in restarted]
        services = (self.at(path) for path in restarted)
        names = tuple(name for name in services if isinstance(name, str))
        return RestartTogether(names, tuple(failures))


@given(groups(), crashes)
def test_tree_agrees_with_the_oracle(root: GroupNode, story: list[Crash]) -> None:
    """With any crashes, groups and limits."""
    tree, oracle, now = Tree(root), Oracle(root), 0.0
    nodes = [oracle.at(path) for path in oracle.below(())]
    services = [node for node in nodes if isinstance(node, str)]
    for dt, number, is_exhausted in story if services else []:
        now += dt
        service = services[number % len(services)]
        outcome = tree.failed(service, now=now, is_exhausted=is_exhausted)
        assert outcome == oracle.failed(service, now, is_exhausted)
        if isinstance(outcome, GiveUpAll):
            break


INNER = GroupNode(
    name="inner",
    children=("b", GroupNode(name="core", children=("c",), intensity=5), "d"),
    intensity=1,
    period=10.0,
)


def outer(**changes: object) -> Tree:
    """a, then the group of b, c (in a group of its own) and d, then e."""
    return Tree(GroupNode(name="outer", children=("a", INNER, "e"), **changes))  # type: ignore[arg-type]


def test_one_for_one_restarts_the_worker_alone() -> None:
    """Not even the other workers of its service."""
    assert outer().failed("a", now=0.0) == RestartTogether()


def test_one_for_all_restarts_everything_in_the_group() -> None:
    """Including inner groups and its own service."""
    tree = outer(strategy="one_for_all")
    assert tree.failed("a", now=0.0) == RestartTogether(("a", "b", "c", "d", "e"))


@pytest.mark.parametrize(("service", "later"), [("a", "bcde"), ("e", "")])
def test_rest_for_one_restarts_later_children(service: str, later: str) -> None:
    """But of its own service only the worker that crashed."""
    tree = outer(strategy="rest_for_one")
    assert tree.failed(service, now=0.0) == RestartTogether(tuple(later))


@pytest.mark.parametrize(
    ("strategy", "together"),
    [("one_for_one", "bcd"), ("rest_for_one", "bcde"), ("one_for_all", "abcde")],
)
def test_group_beyond_its_intensity_fails_as_a_whole(
    strategy: str, together: str
) -> None:
    """The enclosing group restarts it, and others according to its strategy."""
    tree = outer(strategy=strategy)
    assert tree.failed("b", now=0.0) == RestartTogether()
    failure = GroupFailure("inner", 1, 10.0)
    assert tree.failed("d", now=10.0) == RestartTogether(tuple(together), (failure,))
    assert str(failure) == (
        "restart limit of group inner reached (intensity=1, period=10 s)"
    )


def test_restarted_group_has_no_past_crashes() -> None:
    """It fails again only after as many crashes as the first time."""
    tree = outer()
    failures = [tree.failed("b", now=0.0) for _ in range(4)]
    assert [bool(outcome.failures) for outcome in failures] == [
        *(False, True, False, True)
    ]


def test_outermost_group_beyond_its_intensity_gives_up() -> None:
    """Each failure of an inner group counts there once."""
    tree = outer(intensity=1, period=60.0)
    outcomes = [tree.failed("b", now=0.0) for _ in range(4)]
    assert isinstance(outcomes[1], RestartTogether)
    assert outcomes[3] == GiveUpAll(
        (GroupFailure("inner", 1, 10.0), GroupFailure("outer", 1, 60.0))
    )


def test_worker_at_its_restart_limit_fails_its_group() -> None:
    """Whatever the number of crashes in the group's window."""
    failure = GroupFailure("core", None, 60.0)
    tree = outer()
    assert tree.failed("c", now=0.0, is_exhausted=True) == RestartTogether(
        ("c",), (failure,)
    )
    assert str(failure) == "a worker of group core reached its own restart limit"


def test_worker_at_its_restart_limit_in_the_outermost_group_gives_up() -> None:
    outcome = outer(intensity=None).failed("a", now=0.0, is_exhausted=True)
    assert outcome == GiveUpAll((GroupFailure("outer", None, 60.0),))


def test_group_without_intensity_never_fails() -> None:
    """And its crashes take no memory."""
    tree = outer(intensity=None)
    for _ in range(1_000):
        assert tree.failed("a", now=0.0) == RestartTogether()


def test_service_in_two_places_is_rejected() -> None:
    with pytest.raises(ValueError, match="b is in two places"):
        Tree(GroupNode(name="root", children=("b", INNER)))


def test_unknown_service_raises_key_error() -> None:
    with pytest.raises(KeyError, match="absent"):
        outer().failed("absent", now=0.0)


def test_group_restarted_as_a_whole_forgets_crashes_at_any_depth() -> None:
    inner = GroupNode(name="inner", children=("deep",), intensity=1)
    middle = GroupNode(name="middle", children=(inner,))
    root = GroupNode(name="root", children=(middle, "web"), strategy="one_for_all")
    tree = Tree(root)
    tree.failed("deep", now=0)

    tree.failed("web", now=1)  # restarts all

    outcome = tree.failed("deep", now=2)
    assert isinstance(outcome, RestartTogether)
    assert outcome.failures == ()
