"""The two snapshots of a memory sample: one notes what is there, one counts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from attrs import frozen

from trio_supervisor.diagnostics.memory.allocation_epochs import Epoch
from trio_supervisor.diagnostics.memory.attribution import Owners
from trio_supervisor.diagnostics.memory.definitions import Places
from trio_supervisor.diagnostics.memory.fingerprints import (
    SavedFingerprints,
    take_fingerprints,
)
from trio_supervisor.diagnostics.memory.growth import Grown, LargeSizes
from trio_supervisor.diagnostics.memory.heap_walk import (
    Heap,
    find_untracked,
    running_locals,
    tracked_objects,
)
from trio_supervisor.diagnostics.memory.report import Tally, file_name, location_name
from trio_supervisor.diagnostics.snapshot.snapshot import Fields
from trio_supervisor.diagnostics.snapshot.snapshot_child import SnapshotReporter
from trio_supervisor.diagnostics.stacks.frames import RunningThread
from trio_supervisor.errors import SnapshotError
from trio_supervisor.wire.codec import to_fields
from trio_supervisor.wire.memory_reports import Amount, MemoryReport, Pauses

_NOTES: Final = (
    "A location is where a class, function or coroutine is defined; for an instance, "
    "where its class is. What has no definition, as a list or a string, is counted "
    "with the nearest holder that has one, or with the variable of a module that it "
    "is in. It is not the line that allocated it.",
    "total_allocated is net: memory is how much more of it is resident than at the "
    "start, count how many more blocks Python's allocator has in use. What was freed "
    "again in the period is in neither.",
    "Sizes are of each object alone, by pympler. What older objects have grown by, as "
    "the table of a dict, is not in total_retained, but in grown, where it is much; in "
    "neither is what C code alone holds.",
)
_INEXACT: Final = (
    "The application had all garbage collected itself in the period: old and new were "
    "told apart by address, so that new objects in the place of old ones are missing."
)


@frozen(kw_only=True)
class Measured:
    """What the process itself measured of a sample."""

    duration: float
    allocated: Amount
    collections: tuple[int, ...]
    collected: int
    pauses: Pauses


def note_baseline(
    epoch: Epoch,
    threads: Sequence[RunningThread],
    fingerprints: int,
    done: int,
    reporter: SnapshotReporter,
) -> Fields:
    """In the first snapshot: note what the collector does not track.

    Args:
        threads: Those of the process, which are not here.
        fingerprints: Descriptor of the file that it is written to.
        done: Descriptor of a pipe that gets a byte at the end.
    """
    objects = tracked_objects(threads)
    found = take_fingerprints(reporter, objects, with_tracked=epoch.needs_baseline)
    found.save(fingerprints)
    os.write(done, b"d")
    return {}


def count(
    epoch: Epoch,
    measured: Measured,
    threads: Sequence[RunningThread],
    fingerprints: int,
    done: int,
    reporter: SnapshotReporter,
) -> Fields:
    """In the second snapshot: return a `MemoryReport`, but for what its fork took.

    Args:
        threads: Those of the process, which are not here.
        fingerprints: Descriptor of what the first snapshot wrote.
        done: Descriptor of a pipe that says when it is through.
    """
    is_exact = epoch.is_exact
    tracked = epoch.new_objects() if is_exact else []
    objects = tracked_objects(threads)
    if not os.read(done, 1):
        raise SnapshotError("the snapshot of the start did not come to its end")
    before = SavedFingerprints.load(fingerprints)
    if not is_exact:
        tracked = [one for one in objects if not before.was_tracked(id(one))]
    ours = {id(tracked), id(objects[-1]), *(id(thread) for thread in threads)}
    ours.update(id(thread.frame) for thread in threads)
    new = {id(one): one for one in tracked if not _is_old(one, before)}
    reporter.begin(0.0, 0.3)
    large = LargeSizes()
    carriers = find_untracked(reporter, objects, before, new, large)
    for address in ours:
        new.pop(address, None)
    heap = Heap(reporter, objects + carriers, new, running_locals(threads), ours)
    notes = _NOTES if is_exact else (*_NOTES, _INEXACT)
    for address in ours:
        large.found.pop(address, None)
    grown = large.grown_since(before.sizes)
    return to_fields(_report_on(heap, measured, grown, notes))


def _is_old(one: Any, before: SavedFingerprints) -> bool:
    # A dictionary is tracked from when there is something in it that is.
    return type(one) is dict and before.was_dict(id(one), one)


def _report_on(
    heap: Heap, measured: Measured, grown: Sequence[Grown], notes: tuple[str, ...]
) -> MemoryReport:
    reporter, places = heap.reporter, Places()
    reporter.begin(0.3, 0.6)
    tally = Tally.count(heap, places, Owners.find(heap, places))
    reporter.begin(0.6, 1.0)
    holders, grown_holders = tally.holdings(grown)
    return MemoryReport(
        data="",
        duration=measured.duration,
        total_allocated=measured.allocated,
        total_retained=tally.classes.total(),
        by_package=tally.packages.groups(),
        by_file=tally.files.groups(name_of=file_name),
        by_location=tally.locations.groups(name_of=location_name),
        by_class=tally.classes.groups(),
        strings=tally.string_groups(),
        holders=holders,
        grown=grown_holders,
        collections=measured.collections,
        collected=measured.collected,
        pauses=measured.pauses,
        notes=notes,
    )
