"""What each new object belongs to: itself, or the nearest holder that has a place.

A class, a function or an instance of a class has a line of its own. A list, a string or
a number has none: it belongs to what refers to it.
"""

from __future__ import annotations

import gc
from collections import deque
from typing import Any, Final

from attrs import define, field

from trio_supervisor.diagnostics.memory.definitions import Place, Places
from trio_supervisor.diagnostics.memory.fingerprints import is_container
from trio_supervisor.diagnostics.memory.heap_walk import Heap, Local
from trio_supervisor.diagnostics.memory.holders import is_root
from trio_supervisor.diagnostics.memory.references import references

_DEPTH: Final = 8
"""Old containers in each other, from a new object up."""
_ROOT, _PLACED, _CONTAINER = range(3)


@define(eq=False)
class Owners:
    """The holder of each new object, and of the old containers that those are in."""

    _heap: Heap
    _places: Places
    _holders: dict[int, Any] = field(factory=dict)
    _entries: set[int] = field(factory=set)
    _found: dict[int, Place | None] = field(factory=dict)

    @classmethod
    def find(cls, heap: Heap, places: Places) -> Owners:
        """Find them, by a few walks over the heap."""
        owners = cls(heap, places)
        owners._find_entries()
        owners._spread()
        owners._climb()
        return owners

    def is_entry(self, one: Any) -> bool:
        """Whether an old object refers to this new one."""
        return id(one) in self._entries

    def place_of(self, one: Any) -> Place | None:
        """Return where *one* belongs; None: nothing with a place was found above it."""
        holder = self._holders.get(id(one))
        if id(holder) in self._found and not gc.is_tracked(one):
            return self._found[id(holder)]  # one of many leaves in the same
        way: list[int] = []
        place: Place | None = None
        while True:
            address = id(one)
            if address in self._found:
                place = self._found[address]
                break
            self._found[address] = None  # should we come by again
            way.append(address)
            if (place := self._places.of(one)) is not None:
                break
            holder = self._holders.get(address)
            if holder is None:
                break
            if type(holder) is Local:
                code = holder.frame.f_code
                place = Place(code.co_filename, code.co_firstlineno)
                break
            if self._places.module_of(holder) is not None:
                place = self._places.of_variable(holder, one)[1]
                break
            one = holder
        for address in way:
            self._found[address] = place
        return place

    def _find_entries(self) -> None:
        """Find the new objects that old ones refer to."""
        new = self._heap.new
        self._find_holders(set(new))
        self._entries = set(self._holders)
        for address in new.keys() & self._heap.locals.keys():
            self._holders.setdefault(address, self._heap.locals[address])

    def _spread(self) -> None:
        """Go on from these to the new objects below them, by the shortest way."""
        new = self._heap.new
        self._spread_from(deque(new[address] for address in self._holders))
        # What C code alone holds: at least what is below has a holder.
        self._spread_from(
            deque(
                one
                for address, one in new.items()
                if address not in self._holders and self._places.of(one) is not None
            )
        )

    def _spread_from(self, queue: deque[Any]) -> None:
        new, holders = self._heap.new, self._holders
        while queue:
            holder = queue.popleft()
            for one in references([holder]):
                if (address := id(one)) in new and address not in holders:
                    holders[address] = holder
                    if gc.is_tracked(one) or is_container(one):
                        queue.append(one)

    def _climb(self) -> None:
        """Find who holds the old containers that new objects are in."""
        level = list({id(h): h for h in self._holders.values()}.values())
        for _ in range(_DEPTH):
            unknown = {
                id(one)
                for one in level
                if id(one) not in self._holders
                and id(one) not in self._heap.new
                and self._rank(one) == _CONTAINER
            }
            if not unknown:
                break
            level = self._find_holders(unknown)
            for address in unknown & self._heap.locals.keys():
                self._holders.setdefault(address, self._heap.locals[address])

    def _find_holders(self, addresses: set[int]) -> list[Any]:
        """Note the best old referrer to each of *addresses*; return those noted."""
        ranks: dict[int, int] = {}
        for referrer, found in self._heap.referrers(addresses):
            if id(referrer) in self._heap.new:
                continue
            rank = self._rank(referrer)
            for address in found:
                if rank < ranks.get(address, _CONTAINER + 1):
                    ranks[address] = rank
                    self._holders[address] = referrer
        return [self._holders[address] for address in ranks]

    def _rank(self, one: Any) -> int:
        if is_root(self._places, one):
            return _ROOT
        return _CONTAINER if self._places.of(one) is None else _PLACED
