"""Who holds what: the way from a module, a frame or a task to an object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import define, field

from trio_supervisor.diagnostics.memory.definitions import Places, suspended_frame
from trio_supervisor.diagnostics.memory.heap_walk import Heap, Local

_DEPTH: Final = 24
"""Steps from an object to its root that are tried."""
_BREADTH: Final = 2_000
"""Referrers of one object, on one level, that are followed."""


@define(eq=False)
class _Search:
    """The search for the root of one object, upwards."""

    start: Any
    below: dict[int, Any] = field(factory=dict)
    """By address of a referrer: what it refers to, on the way down."""
    level: list[Any] = field(factory=list)
    """What was reached last."""
    root: Any = None
    last: Any = None
    """The farthest object that was reached."""

    def chain(self) -> list[Any]:
        """Return the objects from the root, or the farthest, down to the start."""
        one = self.last if self.root is None else self.root
        found = [one]
        while one is not self.start:
            one = self.below[id(one)]
            found.append(one)
        return found


def find_roots(
    heap: Heap, places: Places, starts: Sequence[Any]
) -> list[tuple[list[Any], bool]]:
    """Return for each of *starts* the shortest chain from a root down to it.

    A root is the namespace of a module, a suspended coroutine or generator, or a
    `Local`. The second value is False if none was reached: then the chain begins with
    the farthest that was.
    """
    searches = [_Search(start, level=[start], last=start) for start in starts]
    for search in searches:
        search.below[id(search.start)] = None
    for _ in range(_DEPTH):
        if not (active := [s for s in searches if s.root is None and s.level]):
            break
        _ascend(heap, places, active)
    return [(search.chain(), search.root is not None) for search in searches]


def is_root(places: Places, one: Any) -> bool:
    """Whether whatever *one* holds needs no other holder."""
    if type(one) is dict:
        return places.module_of(one) is not None
    return type(one) is Local or suspended_frame(one) is not None


def _ascend(heap: Heap, places: Places, searches: Sequence[_Search]) -> None:
    """Go one level up in all *searches*, with one walk over the heap."""
    waiting: dict[int, list[tuple[_Search, Any]]] = {}
    for search in searches:
        for one in search.level:
            waiting.setdefault(id(one), []).append((search, one))
        search.level = []
    for referrer, found in heap.referrers(set(waiting)):
        for address in found:
            for search, one in waiting[address]:
                _reach(search, referrer, one, is_root(places, referrer))
    for address in waiting.keys() & heap.locals.keys():
        for search, one in waiting[address]:
            _reach(search, heap.locals[address], one, True)


def _reach(search: _Search, referrer: Any, one: Any, is_root: bool) -> None:
    if search.root is not None or id(referrer) in search.below:
        return
    if is_root:
        search.root = referrer
        search.below[id(referrer)] = one
    elif len(search.level) < _BREADTH:
        search.below[id(referrer)] = one
        search.level.append(referrer)
        search.last = referrer
