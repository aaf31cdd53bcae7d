"""Walk the heap backwards: from objects to their referrers."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from attrs import define, field

from trio_supervisor.diagnostics.memory.fingerprints import (
    Fingerprints,
    Found,
    SavedFingerprints,
    levels_below,
)
from trio_supervisor.diagnostics.memory.growth import LargeSizes
from trio_supervisor.diagnostics.memory.references import references
from trio_supervisor.diagnostics.memory.running_frames import is_unmarked
from trio_supervisor.diagnostics.snapshot.snapshot_child import SnapshotReporter
from trio_supervisor.diagnostics.stacks.frames import RunningThread, outwards


@define(frozen=True)
class Local:
    """A variable of a running frame, which the collector does not track."""

    thread: str
    frame: FrameType
    name: str
    is_new: bool
    """Whether the function was called in the period."""


@define(eq=False)
class Heap:
    """All objects in a snapshot."""

    reporter: SnapshotReporter
    objects: list[Any]
    """The tracked objects, and untracked containers of new objects."""
    new: Found
    locals: dict[int, Local]
    """Variables of running frames, by the address of their value."""
    hidden: set[int] = field(factory=set)
    """Addresses of our own objects, which do not count as referrers."""

    def referrers(self, addresses: set[int]) -> Iterator[tuple[Any, set[int]]]:
        """Yield each object that refers to some of *addresses*, and to which."""
        for chunk in self.reporter.chunks(self.objects):
            # The whole chunk first: that is all in C, and most chunks have none.
            if addresses.isdisjoint(map(id, references(chunk))):
                continue
            for one in chunk:
                found = addresses.intersection(map(id, references([one])))
                if found and id(one) not in self.hidden:
                    yield one, found


def running_locals(threads: Sequence[RunningThread]) -> dict[int, Local]:
    """Return the variables of all running frames, by the address of their value.

    `FrameMarks` must have been placed at the start of the period.
    """
    found: dict[int, Local] = {}
    for thread in threads:
        for frame in outwards(thread.frame):
            variables = frame.f_locals
            if variables is frame.f_globals:
                continue  # a module's
            is_new = is_unmarked(frame)
            for name, value in dict(variables).items():
                found.setdefault(id(value), Local(thread.name, frame, name, is_new))
    return found


def tracked_objects(threads: Sequence[RunningThread]) -> list[Any]:
    """Return all objects that the collector tracks, frozen or not; in a snapshot.

    The last one is a list of the variables of the frames of *threads*, which the
    collector does not track.
    """
    gc.unfreeze()
    objects = gc.get_objects()
    frames = [frame for thread in threads for frame in outwards(thread.frame)]
    objects.append([value for one in frames for value in dict(one.f_locals).values()])
    return objects


def find_untracked(
    reporter: SnapshotReporter,
    objects: Sequence[Any],
    before: SavedFingerprints,
    new: Found,
    large: LargeSizes,
) -> list[Any]:
    """Add to *new* the untracked objects that did not exist *before*.

    The sizes of old ones, and of old *objects*, are added to *large*.

    Return the untracked containers, not among *objects*, that refer to new or to large
    objects.
    """
    seen = Fingerprints()
    carriers: Found = {}
    sizes = large.found
    for chunk in reporter.chunks(objects):
        levels = list(levels_below(chunk, seen))
        large.add(one for one in chunk if id(one) not in new)
        for level in levels:
            for address, one, value in level:
                if not before.is_known(address, value):
                    new[address] = one
            large.add(one for address, one, _ in level if address not in new)
        for level in reversed(levels):  # a container after what it contains
            for address, one, _ in level:
                if type(one) is dict or type(one) is tuple:
                    inner = map(id, references([one]))
                    if any(i in new or i in carriers or i in sizes for i in inner):
                        carriers[address] = one
    return list(carriers.values())
