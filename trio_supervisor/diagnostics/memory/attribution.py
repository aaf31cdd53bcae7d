"""Attribute each new object to a definition: its own, or that of its nearest referrer.

A class, a function or an instance of a Python class has a definition. A list, a string
or a number has none, and is attributed to what refers to it.
"""

from __future__ import annotations

import gc
from collections import deque
from typing import Any, Final

from attrs import define, field

from trio_supervisor.diagnostics.memory.definitions import DefinitionFinder, SourceLine
from trio_supervisor.diagnostics.memory.fingerprints import is_container
from trio_supervisor.diagnostics.memory.heap_walk import Heap, Local
from trio_supervisor.diagnostics.memory.holders import is_root
from trio_supervisor.diagnostics.memory.references import references

_DEPTH: Final = 8
"""Levels of nested old containers that are followed from a new object upwards."""
_ROOT, _DEFINED, _CONTAINER = range(3)


@define(eq=False)
class Owners:
    """The nearest referrers of new objects and of the old containers around them."""

    _heap: Heap
    _definitions: DefinitionFinder
    _holders: dict[int, Any] = field(factory=dict)
    _entries: set[int] = field(factory=set)
    _found: dict[int, SourceLine | None] = field(factory=dict)

    @classmethod
    def find(cls, heap: Heap, definitions: DefinitionFinder) -> Owners:
        """Find them in a few passes over the heap."""
        owners = cls(heap, definitions)
        owners._find_entries()
        owners._extend()
        owners._ascend()
        return owners

    def is_entry(self, one: Any) -> bool:
        """Whether an old object refers to this new one."""
        return id(one) in self._entries

    def line_of(self, one: Any) -> SourceLine | None:
        """Return the definition that *one* belongs to; None: none was found."""
        holder = self._holders.get(id(one))
        if id(holder) in self._found and not gc.is_tracked(one):
            return self._found[id(holder)]  # one of many leaves of the same container
        path: list[int] = []
        line: SourceLine | None = None
        while True:
            address = id(one)
            if address in self._found:
                line = self._found[address]
                break
            self._found[address] = None  # in case of a reference cycle
            path.append(address)
            if (line := self._definitions.of(one)) is not None:
                break
            holder = self._holders.get(address)
            if holder is None:
                break
            if type(holder) is Local:
                code = holder.frame.f_code
                line = SourceLine(code.co_filename, code.co_firstlineno)
                break
            if self._definitions.module_of(holder) is not None:
                line = self._definitions.of_variable(holder, one)[1]
                break
            one = holder
        for address in path:
            self._found[address] = line
        return line

    def _find_entries(self) -> None:
        """Find the new objects that old ones refer to."""
        new = self._heap.new
        self._find_holders(set(new))
        self._entries = set(self._holders)
        for address in new.keys() & self._heap.locals.keys():
            self._holders.setdefault(address, self._heap.locals[address])

    def _extend(self) -> None:
        """Extend to the new objects below these, by the shortest paths."""
        new = self._heap.new
        self._extend_from(deque(new[address] for address in self._holders))
        # Objects that only C code refers to: their referents still get a holder.
        self._extend_from(
            deque(
                one
                for address, one in new.items()
                if address not in self._holders
                and self._definitions.of(one) is not None
            )
        )

    def _extend_from(self, queue: deque[Any]) -> None:
        new, holders = self._heap.new, self._holders
        while queue:
            holder = queue.popleft()
            for one in references([holder]):
                if (address := id(one)) in new and address not in holders:
                    holders[address] = holder
                    if gc.is_tracked(one) or is_container(one):
                        queue.append(one)

    def _ascend(self) -> None:
        """Find the holders of the old containers that contain new objects."""
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
        """Store the best old referrer of each of *addresses*; return those."""
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
        if is_root(self._definitions, one):
            return _ROOT
        return _CONTAINER if self._definitions.of(one) is None else _DEFINED
