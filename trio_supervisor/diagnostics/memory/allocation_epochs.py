"""Tells the objects that were made since a moment from those that were there before.

Two ways, both by where the collector keeps an object, which is exact even where a new
object has the address of one that is gone:

- `FrozenEpoch`: what is there is put aside by gc.freeze(), where the collector and
  gc.get_objects() do not see it. That takes no time, whatever the size of the heap, and
  a collection at the end looks at what is new alone.
- `OrderedEpoch`, where something is frozen already, as in a process that was forked
  from one that had all imported: to unfreeze that at the end would copy the pages that
  it shares with others. So the oldest generation is left alone for a while, which
  keeps its objects in the order in which they came to it, and a mark is put at its end.

Objects that the collector does not track, as strings, are in neither.
"""

from __future__ import annotations

import gc
from typing import Any, Final, Protocol

from attrs import define, field

_NEVER: Final = 2**31 - 1
"""A threshold that no generation reaches."""


class Epoch(Protocol):
    """What was there before, and what is new."""

    @property
    def is_exact(self) -> bool:
        """False: something happened after which it cannot tell any more."""

    @property
    def needs_baseline(self) -> bool:
        """Whether it may become inexact: then addresses have to tell."""

    def collect(self) -> None:
        """Collect what is new and garbage."""

    def new_objects(self) -> list[Any]:
        """Return what is new; in a snapshot of the process."""

    def end(self) -> None:
        """Leave the collector as it was at the start. Once."""


def begin_epoch() -> Epoch:
    """Let what is allocated from now on be new."""
    return OrderedEpoch.begin() if gc.get_freeze_count() else FrozenEpoch.begin()


@define(eq=False)
class FrozenEpoch:
    """For a process in which nothing is frozen."""

    is_exact: bool = field(default=True, init=False)
    needs_baseline: bool = field(default=False, init=False)

    @classmethod
    def begin(cls) -> FrozenEpoch:
        """Let what is allocated from now on be new."""
        epoch = cls()
        gc.freeze()
        return epoch

    def collect(self) -> None:
        """Collect what is new and garbage."""
        gc.collect()

    def new_objects(self) -> list[Any]:
        """Return what is new."""
        return gc.get_objects()

    def end(self) -> None:
        """Unfreeze."""
        gc.unfreeze()


@define(eq=False)
class OrderedEpoch:
    """For a process in which something is frozen; it stays so."""

    needs_baseline: bool = field(default=True, init=False)
    _thresholds: tuple[int, int, int]
    _steered: tuple[int, int, int]
    _collections: int = field(init=False)
    _mark: list[None] = field(factory=list, init=False)

    @classmethod
    def begin(cls) -> OrderedEpoch:
        """Let what is allocated from now on be new."""
        thresholds = gc.get_threshold()
        # Only the youngest is collected from now on: what survives stays in the next.
        epoch = cls(thresholds, (thresholds[0], _NEVER, _NEVER))
        gc.set_threshold(*epoch._steered)
        # The old generation first gets what else there is, and then the mark alone.
        gc.collect(1)
        epoch._mark = [None]
        gc.collect(1)
        epoch._collections = _full_collections()
        return epoch

    @property
    def is_exact(self) -> bool:
        """False: the application had everything collected, which lost the order."""
        return _full_collections() == self._collections

    def collect(self) -> None:
        """Collect what is new and garbage."""
        gc.collect(1)

    def new_objects(self) -> list[Any]:
        """Return what is new."""
        found = gc.get_objects(0) + gc.get_objects(1)
        objects = iter(gc.get_objects(2))
        for one in objects:
            if one is self._mark:
                break
        return found + list(objects)

    def end(self) -> None:
        """Let old generations be collected again."""
        if gc.get_threshold() == self._steered:
            gc.set_threshold(*self._thresholds)


def _full_collections() -> int:
    return int(gc.get_stats()[2]["collections"])
