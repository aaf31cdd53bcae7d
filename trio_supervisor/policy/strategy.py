"""Choose what is restarted together with a crashed worker: OTP's strategies. Pure.

A crash counts once in the window of the group that contains the worker's service. A
group that exceeds its intensity fails as a whole, which counts once in the window of
the enclosing group. When the outermost group fails, the application shuts down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias, assert_never

from attrs import define, field, frozen
from attrs.validators import ge, gt, in_, instance_of, optional

from trio_supervisor.policy.window import Window

Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
STRATEGIES: Final[tuple[Strategy, ...]] = ("one_for_one", "one_for_all", "rest_for_one")

_number = instance_of((int, float))
_optional_count: Any = optional([instance_of(int), ge(0)])


@frozen(kw_only=True)
class GroupNode:
    """One group with its children in order: names of services, and further groups."""

    name: str
    """For messages; need not be unique."""
    children: tuple[str | GroupNode, ...]
    strategy: Strategy = field(default="one_for_one", validator=in_(STRATEGIES))
    intensity: int | None = field(default=None, validator=_optional_count)
    """Maximum number of crashes within ``period``; None: no limit."""
    period: float = field(default=60.0, validator=[_number, gt(0)])
    """Length of the sliding window [s]."""


@frozen
class GroupFailure:
    """A group that has reached its restart limit."""

    group: str
    restarts: int | None
    """Its intensity; None: a worker in it reached its own restart limit."""
    period: float
    """Length of its window [s]."""

    def __str__(self) -> str:
        if self.restarts is None:
            return f"a worker of group {self.group} reached its own restart limit"
        limit = f"(intensity={self.restarts}, period={self.period:g} s)"
        return f"restart limit of group {self.group} reached {limit}"


@frozen
class RestartTogether:
    """Restart the worker that crashed, and all workers of *services* with it.

    Their restart limits are reset (`RestartHistory.reset_limit`); that of the crashed
    worker is as well if a group failed.
    """

    services: tuple[str, ...] = ()
    """In the order of their declaration."""
    failures: tuple[GroupFailure, ...] = ()
    """The groups that failed because of it, from the innermost out."""


@frozen
class GiveUpAll:
    """The outermost group failed: shut the application down."""

    failures: tuple[GroupFailure, ...]
    """The groups that failed, from the innermost out."""


Outcome: TypeAlias = RestartTogether | GiveUpAll


@define(eq=False)
class _Group:
    """State of a group at run time."""

    node: GroupNode
    parent: _Group | None
    place: int
    """Its index among the children of its parent."""
    children: list[str | _Group] = field(factory=list)
    window: Window = field(factory=Window)

    def services(self) -> Iterator[str]:
        for child in self.children:
            yield from _services(child)

    def reset(self) -> None:
        """Forget the crashes in this group and in the groups within it."""
        self.window.clear()
        for child in self.children:
            if isinstance(child, _Group):
                child.reset()

    def restarted_with(self, place: int) -> list[str | _Group]:
        """Return the children to restart as a whole when the one at *place* failed."""
        match self.node.strategy:
            case "one_for_one":
                together = self.children[place : place + 1]
            case "one_for_all":
                return self.children
            case "rest_for_one":
                together = self.children[place:]
            case _:
                assert_never(self.node.strategy)
        # Of a service that failed, only the worker that crashed is restarted.
        is_group = isinstance(self.children[place], _Group)
        return together if is_group else together[1:]


class Tree:
    """All groups of an application, with the recent crashes in each.

    Raises:
        ValueError: a service is in it twice.
    """

    def __init__(self, root: GroupNode) -> None:
        self._homes: dict[str, tuple[_Group, int]] = {}
        self._add(root, None, 0)

    def failed(
        self, service: str, *, now: float, is_exhausted: bool = False
    ) -> Outcome:
        """Count the crash of a worker of *service* that is to be restarted.

        Not called for planned restarts, nor for workers that are not restarted.

        Args:
            service: The worker's service.
            now: Time of the crash [s], by any monotonic clock.
            is_exhausted: Whether the worker has reached its own restart limit, which
                makes its group fail.

        Raises:
            KeyError: there is no such service.
        """
        group, place = self._homes[service]
        failures: list[GroupFailure] = []
        while (failure := _failure(group, now, is_exhausted)) is not None:
            failures.append(failure)
            if group.parent is None:
                return GiveUpAll(tuple(failures))
            group, place, is_exhausted = group.parent, group.place, False
        together = group.restarted_with(place)
        for child in together:
            if isinstance(child, _Group):
                child.reset()
        names = (name for child in together for name in _services(child))
        return RestartTogether(tuple(names), tuple(failures))

    def _add(self, node: GroupNode, parent: _Group | None, place: int) -> _Group:
        group = _Group(node, parent, place)
        for index, child in enumerate(node.children):
            if isinstance(child, GroupNode):
                group.children.append(self._add(child, group, index))
                continue
            if child in self._homes:
                raise ValueError(f"{child} is in two places")
            self._homes[child] = group, index
            group.children.append(child)
        return group


def _failure(group: _Group, now: float, is_exhausted: bool) -> GroupFailure | None:
    """Count a crash in *group*; return its failure, or None within the limit."""
    node = group.node
    if is_exhausted:
        return GroupFailure(node.name, None, node.period)
    if node.intensity is None:
        return None
    restarts = group.window.add(now, node.period)
    if restarts <= node.intensity:
        return None
    return GroupFailure(node.name, restarts - 1, node.period)


def _services(child: str | _Group) -> Iterator[str]:
    if isinstance(child, str):
        yield child
    else:
        yield from child.services()
