"""Do the work of a memory sample's two snapshots: record a baseline, count."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from attrs import frozen

from trio_supervisor.diagnostics.memory.allocation_epochs import Epoch
from trio_supervisor.diagnostics.memory.attribution import Owners
from trio_supervisor.diagnostics.memory.definitions import DefinitionFinder
from trio_supervisor.diagnostics.memory.fingerprints import (
    SavedFingerprints,
    take_fingerprints,
)
from trio_supervisor.diagnostics.memory.growth import GrownObject, LargeSizes
from trio_supervisor.diagnostics.memory.heap_walk import (
    Heap,
    find_untracked,
    running_locals,
    tracked_objects,
)
from trio_supervisor.diagnostics.memory.report import (
    RetainedTotals,
    file_name,
    location_name,
)
from trio_supervisor.diagnostics.snapshot.snapshot import Fields
from trio_supervisor.diagnostics.snapshot.snapshot_child import SnapshotReporter
from trio_supervisor.diagnostics.stacks.frames import RunningThread
from trio_supervisor.errors import SnapshotError
from trio_supervisor.wire.codec import to_fields
from trio_supervisor.wire.memory_reports import Amount, MemoryReport, Pauses

_NOTES: Final = (
    "A location is where a class, function or coroutine is defined; for an instance, "
    "where its class is defined. Objects without a definition, such as lists and "
    "strings, are counted at their nearest referrer that has one, or at the module "
    "variable that refers to them. That is not the line that allocated them.",
    "total_allocated is net: memory is the growth of the resident memory, count the "
    "growth in blocks of Python's allocator. Neither includes what was freed again "
    "during the sample.",
    "Sizes are shallow (pympler): each object without what it refers to. The growth of "
    "existing objects, such as the table of a dict, is not in total_retained; large "
    "growth is listed in grown. Neither includes memory that only C code refers to.",
)
_INEXACT: Final = (
    "The application ran a full garbage collection during the sample: new objects were "
    "found by address, so those at reused addresses are missing."
)


@frozen(kw_only=True)
class Measured:
    """What the process itself measured for a sample."""

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
    """Record the objects that the collector does not track, in the first snapshot.

    Args:
        threads: The threads of the process, which do not run in the snapshot.
        fingerprints: Descriptor of the file to write to.
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
    """Return a `MemoryReport` without its own fork's pause, in the second snapshot.

    Args:
        threads: The threads of the process, which do not run in the snapshot.
        fingerprints: Descriptor of the file that the first snapshot wrote.
        done: Descriptor of a pipe that signals the end of the first snapshot.
    """
    is_exact = epoch.is_exact
    tracked = epoch.new_objects() if is_exact else []
    objects = tracked_objects(threads)
    if not os.read(done, 1):
        raise SnapshotError("the snapshot at the start of the sample did not finish")
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
    # A dictionary becomes tracked once it contains a tracked object.
    return type(one) is dict and before.was_dict(id(one), one)


def _report_on(
    heap: Heap, measured: Measured, grown: Sequence[GrownObject], notes: tuple[str, ...]
) -> MemoryReport:
    reporter, definitions = heap.reporter, DefinitionFinder()
    reporter.begin(0.3, 0.6)
    totals = RetainedTotals.count(heap, definitions, Owners.find(heap, definitions))
    reporter.begin(0.6, 1.0)
    holders, grown_holders = totals.holdings(grown)
    return MemoryReport(
        data="",
        duration=measured.duration,
        total_allocated=measured.allocated,
        total_retained=totals.classes.total(),
        by_package=totals.packages.groups(),
        by_file=totals.files.groups(name_of=file_name),
        by_location=totals.locations.groups(name_of=location_name),
        by_class=totals.classes.groups(),
        strings=totals.string_groups(),
        holders=holders,
        grown=grown_holders,
        collections=measured.collections,
        collected=measured.collected,
        pauses=measured.pauses,
        notes=notes,
    )
