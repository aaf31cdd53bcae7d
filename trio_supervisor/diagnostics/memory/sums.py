"""Add up memory and counts by key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import define, field

from trio_supervisor.wire.memory_reports import Amount, ObjectGroup

_GROUPS: Final = 50
"""Groups of one grouping; the rest is added up."""


@define(eq=False)
class Sums:
    """Totals of memory and counts by key."""

    _memory: dict[Any, int] = field(factory=dict)
    _count: dict[Any, int] = field(factory=dict)

    def add(self, key: Any, memory: int, count: int = 1) -> None:
        """Add objects to the total of *key*."""
        self._memory[key] = self._memory.get(key, 0) + memory
        self._count[key] = self._count.get(key, 0) + count

    def total(self) -> Amount:
        """Return the grand total."""
        memory, count = sum(self._memory.values()), sum(self._count.values())
        return Amount(memory=memory, count=count)

    def largest(self) -> list[tuple[Any, Amount]]:
        """Return all totals that are not zero, the largest first."""
        found = [
            (key, Amount(memory=memory, count=self._count[key]))
            for key, memory in self._memory.items()
            if memory or self._count[key]
        ]
        found.sort(key=lambda item: item[1].memory, reverse=True)
        return found

    def groups(
        self, limit: int = _GROUPS, name_of: Callable[[Any], str] = str
    ) -> tuple[ObjectGroup, ...]:
        """Return the *limit* largest groups, and the rest as one group."""
        ordered = self.largest()
        found = [_group(name_of(key), [amount]) for key, amount in ordered[:limit]]
        if rest := [amount for _, amount in ordered[limit:]]:
            found.append(_group("(others)", rest))
        return tuple(found)


def _group(name: str, amounts: Sequence[Amount]) -> ObjectGroup:
    return ObjectGroup(
        name=name,
        memory=sum(amount.memory for amount in amounts),
        count=sum(amount.count for amount in amounts),
    )
