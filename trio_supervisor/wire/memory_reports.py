"""Results of a worker's memory diagnostics, as data."""

from __future__ import annotations

from typing import Final

from attrs import field, frozen
from attrs.validators import instance_of

_data = instance_of(str)


@frozen(kw_only=True)
class Amount:
    """Number and total size of objects, in the format of Ruby's clients."""

    memory: int
    """[bytes]"""
    count: int


@frozen(kw_only=True)
class ObjectGroup:
    """A group of objects, such as those of one file."""

    name: str
    memory: int
    """[bytes]"""
    count: int


@frozen(kw_only=True)
class Step:
    """One step from a holder to what it holds."""

    text: str
    """Such as ``variable CACHE of module app``."""
    file: str | None = None
    """Where the holder is defined. None: an ordinary object such as a list."""
    line: int | None = None
    is_new: bool = False
    """Whether the holder itself was made, or its function called, in the period."""


@frozen(kw_only=True)
class Holding:
    """What holds a group of retained objects."""

    class_name: str
    location: str
    """``file:line`` as in ``by_location``."""
    memory: int
    """Memory of the whole group [bytes]."""
    count: int
    chain: tuple[Step, ...]
    """The shortest path found from the root to one of the objects."""
    is_rooted: bool
    """False: no module, frame or task was found; C code may hold it."""


@frozen(kw_only=True)
class Growth:
    """An object that existed before the period and has grown."""

    class_name: str
    before: int
    """Its size at the start [bytes]; 0: less than 4 KiB."""
    now: int
    """[bytes]"""
    chain: tuple[Step, ...]
    """The path from the root to it, as in `Holding`."""
    is_rooted: bool


@frozen(kw_only=True)
class Pauses:
    """How long the process was paused for the sample."""

    start: float
    """Pause of the fork at the start [s]."""
    collection: float
    """Pause of the collection of new garbage [s]."""
    end: float
    """Pause of the fork at the end [s]."""


@frozen(kw_only=True)
class MemoryReport:
    """Which objects were allocated in a period and are retained after a collection.

    Each ``by_...`` is sorted by size, the largest first, and adds up to
    ``total_retained``; what there is no room for is summed up in a group ``(others)``.
    """

    data: str = field(validator=_data)
    """The whole as text."""
    duration: float
    """[s]"""
    total_allocated: Amount
    """Net growth since the start; may be negative."""
    total_retained: Amount
    by_package: tuple[ObjectGroup, ...]
    by_file: tuple[ObjectGroup, ...]
    by_location: tuple[ObjectGroup, ...]
    by_class: tuple[ObjectGroup, ...]
    strings: tuple[ObjectGroup, ...]
    """By content, abbreviated; they add up to ``str`` in ``by_class``."""
    holders: tuple[Holding, ...]
    """Holders of the largest groups."""
    grown: tuple[Growth, ...] = ()
    """Containers and buffers that grew the most; not in ``total_retained``."""
    collections: tuple[int, ...]
    """Garbage collections in the period, by generation."""
    collected: int
    """Number of objects that they freed."""
    pauses: Pauses
    notes: tuple[str, ...]
    """What the figures mean and omit."""


# Heap dumps.

HEAP_FORMAT: Final = "trio_supervisor heap 1"
"""Format name in the first line of a dump."""


@frozen(kw_only=True)
class DumpReport:
    """A heap dump that was written."""

    data: str = field(validator=_data)
    path: str
    objects: int
    memory: int
    """Total memory of all objects [bytes]."""
    size: int
    """Size of the file [bytes]."""
    pause: float
    """How long the process was paused [s]."""


@frozen(kw_only=True)
class HeapSummary:
    """Contents of one heap dump. Both groupings add up to ``total``."""

    data: str = field(validator=_data)
    path: str
    process_id: int
    taken_at: float
    """When it was written [s since the epoch]."""
    total: Amount
    by_type: tuple[ObjectGroup, ...]
    by_module: tuple[ObjectGroup, ...]


@frozen(kw_only=True)
class HeapComparison:
    """Differences between two heap dumps, and what a third one still has.

    An object is known again by its address and its type: one that took the place of
    another of its type counts as that one.
    """

    data: str = field(validator=_data)
    paths: tuple[str, ...]
    grown: tuple[ObjectGroup, ...]
    """Changes by type from the first dump to the last; may be negative."""
    new: Amount
    """Objects in the second dump and not in the first."""
    gone: Amount
    """Objects in the first dump and not in the second."""
    stayed: Amount | None
    """New objects that are still in the third dump; None: only two dumps."""
    new_by_type: tuple[ObjectGroup, ...]
    stayed_by_type: tuple[ObjectGroup, ...]
