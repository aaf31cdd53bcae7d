"""Walks the heap backwards: from objects to those that refer to them."""

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
from trio_supervisor.diagnostics.snapshot.snapshot_child import SnapshotReporter
from trio_supervisor.diagnostics.stacks.frames import RunningThread, outwards


@define(frozen=True)
class Local:
    """A variable of a frame that a thread runs, which the collector does not see."""

    thread: str
    frame: FrameType
    name: str


@define(eq=False)
class Heap:
    """All that there is in a snapshot."""

    reporter: SnapshotReporter
    objects: list[Any]
    """Those that the collector tracks, and untracked containers of new ones."""
    new: Found
    locals: dict[int, Local]
    """Of running threads, by the address of their value."""
    hidden: set[int] = field(factory=set)
    """Addresses of what is ours: it does not count as a holder."""

    def referrers(self, addresses: set[int]) -> Iterator[tuple[Any, set[int]]]:
        """Return each object that refers to some of *addresses*, and to which."""
        for chunk in self.reporter.chunks(self.objects):
            # Together first: that is all C code, and most refer to none of them.
            if addresses.isdisjoint(map(id, references(chunk))):
                continue
            for one in chunk:
                found = addresses.intersection(map(id, references([one])))
                if found and id(one) not in self.hidden:
                    yield one, found


def running_locals(threads: Sequence[RunningThread]) -> dict[int, Local]:
    """Return the variables of all running frames, by the address of their value."""
    found: dict[int, Local] = {}
    for thread in threads:
        for frame in outwards(thread.frame):
            variables = frame.f_locals
            if variables is frame.f_globals:
                continue  # a module's
            for name, value in dict(variables).items():
                found.setdefault(id(value), Local(thread.name, frame, name))
    return found


def tracked_objects(threads: Sequence[RunningThread]) -> list[Any]:
    """Return all objects that the collector tracks, frozen or not; in a snapshot.

    The last one is a list that stands in for the frames of *threads*: of their
    variables, of which the collector does not know.
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
    """Add to *new* the untracked objects that were not there *before*.

    The sizes of old ones, and of old *objects*, are added to *large*.

    Returns the untracked containers that refer to new ones, or to large ones, which
    are not among *objects*.
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
