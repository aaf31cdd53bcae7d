"""Find the references that keep an object alive, from a module, frame or task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import define, field

from trio_supervisor.diagnostics.memory.definitions import (
    DefinitionFinder,
    suspended_frame,
)
from trio_supervisor.diagnostics.memory.heap_walk import Heap, Local

_MAX_DEPTH: Final = 24
"""References that are followed from an object towards a root."""
_MAX_BREADTH: Final = 2_000
"""Referrers per level that are followed from one object."""


@define(eq=False)
class _RootSearch:
    """A breadth-first search along referrers for the root of one object."""

    start: Any
    below: dict[int, Any] = field(factory=dict)
    """By address of a referrer: the object it refers to, towards the start."""
    level: list[Any] = field(factory=list)
    """The referrers that were reached last."""
    root: Any = None
    last: Any = None
    """The farthest referrer that was reached."""

    def chain(self) -> list[Any]:
        """Return the objects from the root, or the farthest one, down to the start."""
        one = self.last if self.root is None else self.root
        found = [one]
        while one is not self.start:
            one = self.below[id(one)]
            found.append(one)
        return found


def find_roots(
    heap: Heap, definitions: DefinitionFinder, starts: Sequence[Any]
) -> list[tuple[list[Any], bool]]:
    """Return for each of *starts* the shortest chain from a root down to it.

    A root is the namespace of a module, a suspended coroutine or generator, or a
    `Local`. The second value is False if no root was reached: then the chain begins
    with the farthest referrer.
    """
    searches = [_RootSearch(start, level=[start], last=start) for start in starts]
    for search in searches:
        search.below[id(search.start)] = None
    for _ in range(_MAX_DEPTH):
        if not (active := [s for s in searches if s.root is None and s.level]):
            break
        _ascend(heap, definitions, active)
    return [(search.chain(), search.root is not None) for search in searches]


def is_root(definitions: DefinitionFinder, one: Any) -> bool:
    """Return whether *one* is a root: it needs no referrer to stay alive."""
    if type(one) is dict:
        return definitions.module_of(one) is not None
    return type(one) is Local or suspended_frame(one) is not None


def _ascend(
    heap: Heap, definitions: DefinitionFinder, searches: Sequence[_RootSearch]
) -> None:
    """Go one level up in all *searches*, in one pass over the heap."""
    waiting: dict[int, list[tuple[_RootSearch, Any]]] = {}
    for search in searches:
        for one in search.level:
            waiting.setdefault(id(one), []).append((search, one))
        search.level = []
    for referrer, found in heap.referrers(set(waiting)):
        for address in found:
            for search, one in waiting[address]:
                _reach(search, referrer, one, is_root(definitions, referrer))
    for address in waiting.keys() & heap.locals.keys():
        for search, one in waiting[address]:
            _reach(search, heap.locals[address], one, True)


def _reach(search: _RootSearch, referrer: Any, one: Any, is_root: bool) -> None:
    if search.root is not None or id(referrer) in search.below:
        return
    if is_root:
        search.root = referrer
        search.below[id(referrer)] = one
    elif len(search.level) < _MAX_BREADTH:
        search.below[id(referrer)] = one
        search.level.append(referrer)
        search.last = referrer
