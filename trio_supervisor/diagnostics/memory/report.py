"""Adds up new objects into a report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from attrs import define, field

from trio_supervisor._location import PACKAGE
from trio_supervisor.diagnostics.memory.attribution import Owners
from trio_supervisor.diagnostics.memory.definitions import Place, Places
from trio_supervisor.diagnostics.memory.growth import Grown
from trio_supervisor.diagnostics.memory.heap_walk import Heap
from trio_supervisor.diagnostics.memory.holder_chains import describe_chain
from trio_supervisor.diagnostics.memory.holders import find_roots
from trio_supervisor.diagnostics.memory.sizes import Sizes
from trio_supervisor.diagnostics.memory.sums import Sums
from trio_supervisor.diagnostics.stacks.frames import printable
from trio_supervisor.diagnostics.stacks.values import short, type_name
from trio_supervisor.wire.memory_reports import Amount, Group, Growth, Holding

_STRINGS: Final = 30
_HOLDINGS: Final = 12
"""Groups for which holders are looked for."""
_TEXT: Final = 60
"""Of a string [characters]."""
_OWN: Final = os.path.join(PACKAGE, "diagnostics", "")


@define(eq=False)
class _ById:
    """A type as a key: to hash the type itself could ask its metaclass."""

    type: type


@define(eq=False)
class Tally:
    """What the new objects of a heap add up to."""

    _heap: Heap
    _places: Places
    _owners: Owners
    packages: Sums = field(factory=Sums)
    files: Sums = field(factory=Sums)
    locations: Sums = field(factory=Sums)
    classes: Sums = field(factory=Sums)
    strings: Sums = field(factory=Sums)
    _kinds: Sums = field(factory=Sums)
    """By class and location."""
    _samples: dict[Any, Any] = field(factory=dict)
    """One object of each kind; one that an old object refers to, where there is."""

    @classmethod
    def count(cls, heap: Heap, places: Places, owners: Owners) -> Tally:
        """Count all new objects but our own."""
        tally = cls(heap, places, owners)
        tally._count_kinds()
        for (type_, place), amount in tally._kinds.largest():
            added = amount.memory, amount.count
            tally.classes.add(type_name(type_.type), *added)
            tally.locations.add(place, *added)
            tally.files.add(place and place.file, *added)
            tally.packages.add(places.package_of(place), *added)
        return tally

    def _count_kinds(self) -> None:
        sizes, types = Sizes(), dict[int, _ById]()
        for one in self._heap.new.values():
            place = self._owners.place_of(one)
            if place is not None and place.file.startswith(_OWN):
                continue
            type_ = type(one)
            if (key := types.get(id(type_))) is None:
                key = types[id(type_)] = _ById(type_)
            kind, size = (key, place), sizes.of(one)
            self._kinds.add(kind, size)
            if type_ is str:
                self.strings.add(one, size)
            if kind not in self._samples or self._is_better(one, kind):
                self._samples[kind] = one

    def _is_better(self, one: Any, kind: Any) -> bool:
        is_entry = self._owners.is_entry
        return is_entry(one) and not is_entry(self._samples[kind])

    def holdings(
        self, grown: Sequence[Grown]
    ) -> tuple[tuple[Holding, ...], tuple[Growth, ...]]:
        """Return who holds the largest groups of one class and location, and *grown*.

        Together, for each walk over the heap takes its time.
        """
        largest = self._kinds.largest()[:_HOLDINGS]
        starts = [self._samples[kind] for kind, _ in largest]
        others = [one.one for one in grown]
        roots = find_roots(self._heap, self._places, starts + others)
        count = len(starts)
        return self._holdings(largest, roots[:count]), tuple(
            Growth(
                class_name=type_name(type(one.one)),
                before=one.before,
                now=one.now,
                chain=describe_chain(self._places, chain, self._heap.new),
                is_rooted=is_rooted,
            )
            for one, (chain, is_rooted) in zip(grown, roots[count:], strict=True)
        )

    def _holdings(
        self,
        largest: Sequence[tuple[Any, Amount]],
        roots: Sequence[tuple[list[Any], bool]],
    ) -> tuple[Holding, ...]:
        return tuple(
            Holding(
                class_name=type_name(type_.type),
                location=location_name(place),
                memory=amount.memory,
                count=amount.count,
                chain=describe_chain(self._places, chain, self._heap.new),
                is_rooted=is_rooted,
            )
            for ((type_, place), amount), (chain, is_rooted) in zip(
                largest, roots, strict=True
            )
        )

    def string_groups(self) -> tuple[Group, ...]:
        """Return the strings by content."""
        return self.strings.groups(_STRINGS, _cut)


def location_name(place: Place | None) -> str:
    """Return a place as ``file:line``."""
    return "(unknown)" if place is None else f"{printable(place.file)}:{place.line}"


def file_name(file: str | None) -> str:
    """Return a file as text."""
    return "(unknown)" if file is None else printable(file)


def _cut(text: str) -> str:
    return short(text if len(text) <= _TEXT else text[:_TEXT] + "…")
