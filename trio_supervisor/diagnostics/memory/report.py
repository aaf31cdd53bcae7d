"""Add up new objects by class, location, file and package."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from attrs import define, field

from trio_supervisor._location import PACKAGE
from trio_supervisor.diagnostics.memory.attribution import Owners
from trio_supervisor.diagnostics.memory.definitions import DefinitionFinder, SourceLine
from trio_supervisor.diagnostics.memory.growth import GrownObject
from trio_supervisor.diagnostics.memory.heap_walk import Heap
from trio_supervisor.diagnostics.memory.holder_chains import describe_chain
from trio_supervisor.diagnostics.memory.holders import find_roots
from trio_supervisor.diagnostics.memory.sizes import Sizes
from trio_supervisor.diagnostics.memory.sums import Sums
from trio_supervisor.diagnostics.stacks.frames import printable
from trio_supervisor.diagnostics.stacks.values import short, type_name
from trio_supervisor.wire.memory_reports import Amount, Growth, Holding, ObjectGroup

_STRINGS: Final = 30
_HOLDINGS: Final = 12
"""Groups whose holders are searched."""
_TEXT: Final = 60
"""Text shown of a string [characters]."""
_OWN: Final = os.path.join(PACKAGE, "diagnostics", "")


@define(eq=False)
class _TypeKey:
    """A type as a key: hashing the type itself could call its metaclass."""

    type: type


@define(eq=False)
class RetainedTotals:
    """Totals of the new objects of a heap."""

    _heap: Heap
    _definitions: DefinitionFinder
    _owners: Owners
    packages: Sums = field(factory=Sums)
    files: Sums = field(factory=Sums)
    locations: Sums = field(factory=Sums)
    classes: Sums = field(factory=Sums)
    strings: Sums = field(factory=Sums)
    _kinds: Sums = field(factory=Sums)
    """By class and location."""
    _samples: dict[Any, Any] = field(factory=dict)
    """One object of each kind, preferably one that an old object refers to."""

    @classmethod
    def count(
        cls, heap: Heap, definitions: DefinitionFinder, owners: Owners
    ) -> RetainedTotals:
        """Add up all new objects except our own."""
        totals = cls(heap, definitions, owners)
        totals._count_kinds()
        for (type_, definition), amount in totals._kinds.largest():
            added = amount.memory, amount.count
            totals.classes.add(type_name(type_.type), *added)
            totals.locations.add(definition, *added)
            totals.files.add(definition and definition.file, *added)
            totals.packages.add(definitions.package_of(definition), *added)
        return totals

    def _count_kinds(self) -> None:
        sizes, types = Sizes(), dict[int, _TypeKey]()
        for one in self._heap.new.values():
            definition = self._owners.line_of(one)
            if definition is not None and definition.file.startswith(_OWN):
                continue
            type_ = type(one)
            if (key := types.get(id(type_))) is None:
                key = types[id(type_)] = _TypeKey(type_)
            kind, size = (key, definition), sizes.of(one)
            self._kinds.add(kind, size)
            if type_ is str:
                self.strings.add(one, size)
            if kind not in self._samples or self._is_better(one, kind):
                self._samples[kind] = one

    def _is_better(self, one: Any, kind: Any) -> bool:
        is_entry = self._owners.is_entry
        return is_entry(one) and not is_entry(self._samples[kind])

    def holdings(
        self, grown: Sequence[GrownObject]
    ) -> tuple[tuple[Holding, ...], tuple[Growth, ...]]:
        """Return the holders of the largest groups, and those of *grown* objects.

        Both are searched together, since each pass over the heap takes time.
        """
        largest = self._kinds.largest()[:_HOLDINGS]
        starts = [self._samples[kind] for kind, _ in largest]
        others = [one.one for one in grown]
        roots = find_roots(self._heap, self._definitions, starts + others)
        count = len(starts)
        return self._holdings(largest, roots[:count]), tuple(
            Growth(
                class_name=type_name(type(one.one)),
                before=one.before,
                now=one.now,
                chain=describe_chain(self._definitions, chain, self._heap.new),
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
                location=location_name(definition),
                memory=amount.memory,
                count=amount.count,
                chain=describe_chain(self._definitions, chain, self._heap.new),
                is_rooted=is_rooted,
            )
            for ((type_, definition), amount), (chain, is_rooted) in zip(
                largest, roots, strict=True
            )
        )

    def string_groups(self) -> tuple[ObjectGroup, ...]:
        """Return the strings, grouped by content."""
        return self.strings.groups(_STRINGS, _cut)


def location_name(definition: SourceLine | None) -> str:
    """Return a definition as ``file:line``."""
    return (
        "(unknown)"
        if definition is None
        else f"{printable(definition.file)}:{definition.line}"
    )


def file_name(file: str | None) -> str:
    """Return a file as text."""
    return "(unknown)" if file is None else printable(file)


def _cut(text: str) -> str:
    return short(text if len(text) <= _TEXT else text[:_TEXT] + "…")
