"""Tell objects that are allocated from a moment on from those that existed before.

Two ways, both by the collector's own lists, which is exact even if a new object reuses
the address of an old one:

- `FrozenEpoch`: gc.freeze() moves the existing objects to the permanent generation,
  which the collector and gc.get_objects() ignore. That takes constant time, and a
  collection at the end visits new objects only.
- `OrderedEpoch`, where objects are frozen already, as in a worker forked from the fork
  server: to unfreeze those at the end would copy the pages that they share. Instead,
  the oldest generation is not collected for a while, which preserves the order of its
  objects, and a marker is placed at its end.

Neither contains objects that the collector does not track, such as strings.
"""

from __future__ import annotations

import gc
from typing import Any, Final, Protocol

from attrs import define, field

_NEVER: Final = 2**31 - 1
"""A threshold that no generation reaches."""


class Epoch(Protocol):
    """A moment that separates old objects from new ones."""

    @property
    def is_exact(self) -> bool:
        """False: the order was lost, so it cannot tell old objects from new ones."""

    @property
    def needs_baseline(self) -> bool:
        """Whether it may become inexact: then addresses must be recorded."""

    def collect(self) -> None:
        """Collect new garbage."""

    def new_objects(self) -> list[Any]:
        """Return the new objects; in a snapshot of the process."""

    def end(self) -> None:
        """Restore the collector's settings. Call it once."""


def begin_epoch() -> Epoch:
    """Begin an epoch: objects allocated from now on are new."""
    return OrderedEpoch.begin() if gc.get_freeze_count() else FrozenEpoch.begin()


@define(eq=False)
class FrozenEpoch:
    """For a process without frozen objects."""

    is_exact: bool = field(default=True, init=False)
    needs_baseline: bool = field(default=False, init=False)

    @classmethod
    def begin(cls) -> FrozenEpoch:
        """Begin an epoch: objects allocated from now on are new."""
        epoch = cls()
        gc.freeze()
        return epoch

    def collect(self) -> None:
        """Collect new garbage."""
        gc.collect()

    def new_objects(self) -> list[Any]:
        """Return the new objects."""
        return gc.get_objects()

    def end(self) -> None:
        """Unfreeze."""
        gc.unfreeze()


@define(eq=False)
class OrderedEpoch:
    """For a process with frozen objects, which stay frozen."""

    needs_baseline: bool = field(default=True, init=False)
    _thresholds: tuple[int, int, int]
    _changed: tuple[int, int, int]
    _collections: int = field(init=False)
    _marker: list[None] = field(factory=list, init=False)

    @classmethod
    def begin(cls) -> OrderedEpoch:
        """Begin an epoch: objects allocated from now on are new."""
        thresholds = gc.get_threshold()
        # From now on only generation 0 is collected; survivors stay in generation 1.
        epoch = cls(thresholds, (thresholds[0], _NEVER, _NEVER))
        gc.set_threshold(*epoch._changed)
        # Generation 2 first gets all existing objects, and then the marker.
        gc.collect(1)
        epoch._marker = [None]
        gc.collect(1)
        epoch._collections = _full_collections()
        return epoch

    @property
    def is_exact(self) -> bool:
        """False: the application ran a full collection, which lost the order."""
        return _full_collections() == self._collections

    def collect(self) -> None:
        """Collect new garbage."""
        gc.collect(1)

    def new_objects(self) -> list[Any]:
        """Return the new objects."""
        found = gc.get_objects(0) + gc.get_objects(1)
        objects = iter(gc.get_objects(2))
        for one in objects:
            if one is self._marker:
                break
        return found + list(objects)

    def end(self) -> None:
        """Restore the thresholds, unless the application has changed them."""
        if gc.get_threshold() == self._changed:
            gc.set_threshold(*self._thresholds)


def _full_collections() -> int:
    return int(gc.get_stats()[2]["collections"])
