"""What looking into a worker's memory finds, as data."""

from __future__ import annotations

from typing import Final

from attrs import field, frozen
from attrs.validators import instance_of

_data = instance_of(str)


@frozen(kw_only=True)
class Amount:
    """So many objects of so much memory, in the model's words."""

    memory: int
    """[bytes]"""
    count: int


@frozen(kw_only=True)
class ObjectGroup:
    """The objects that have something in common."""

    name: str
    memory: int
    """[bytes]"""
    count: int


@frozen(kw_only=True)
class Step:
    """One step from a holder to what it holds."""

    text: str
    """As ``variable CACHE of module app``."""
    file: str | None = None
    """Where the holder is defined. None: it is an object as any other, as a list."""
    line: int | None = None
    is_new: bool = False
    """Whether the holder itself was made in the period."""


@frozen(kw_only=True)
class Holding:
    """Who holds a group of retained objects."""

    class_name: str
    location: str
    """``file:line`` as in ``by_location``."""
    memory: int
    """Of the whole group [bytes]."""
    count: int
    chain: tuple[Step, ...]
    """From the root down to one of them, along the shortest way that was found."""
    is_rooted: bool
    """False: no module, frame or task was reached: C code may hold it."""


@frozen(kw_only=True)
class Growth:
    """An object that was there before, and has grown."""

    class_name: str
    before: int
    """The size of what was in it at the start; 0: less than 4 KiB [bytes]."""
    now: int
    """[bytes]"""
    chain: tuple[Step, ...]
    """From the root down to it, as of a `Holding`."""
    is_rooted: bool


@frozen(kw_only=True)
class Pauses:
    """How long the process stood still for the sample."""

    start: float
    """The fork at the start [s]."""
    collection: float
    """Collecting what was new and garbage [s]."""
    end: float
    """The fork at the end [s]."""


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
    """Net: what there is more now than at the start; may be negative."""
    total_retained: Amount
    by_package: tuple[ObjectGroup, ...]
    by_file: tuple[ObjectGroup, ...]
    by_location: tuple[ObjectGroup, ...]
    by_class: tuple[ObjectGroup, ...]
    strings: tuple[ObjectGroup, ...]
    """By content, cut short; they add up to the ``str`` of ``by_class``."""
    holders: tuple[Holding, ...]
    """Of the largest groups."""
    grown: tuple[Growth, ...] = ()
    """Containers and buffers that have grown the most; not in ``total_retained``."""
    collections: tuple[int, ...]
    """Collections of garbage in the period, by generation."""
    collected: int
    """Objects that they freed."""
    pauses: Pauses
    notes: tuple[str, ...]
    """What the figures mean, and what they leave out."""


# Heap dumps.

HEAP_FORMAT: Final = "trio_supervisor heap 1"
"""What the first line of a dump says."""


@frozen(kw_only=True)
class DumpReport:
    """A dump of the heap was written."""

    data: str = field(validator=_data)
    path: str
    objects: int
    memory: int
    """Of all objects together [bytes]."""
    size: int
    """Of the file [bytes]."""
    pause: float
    """How long the process stood still [s]."""


@frozen(kw_only=True)
class HeapSummary:
    """What one dump holds. Both groupings add up to ``total``."""

    data: str = field(validator=_data)
    path: str
    process_id: int
    taken_at: float
    """Since 1970 [s]."""
    total: Amount
    by_type: tuple[ObjectGroup, ...]
    by_module: tuple[ObjectGroup, ...]


@frozen(kw_only=True)
class HeapComparison:
    """What differs between two dumps, and what stayed in the third.

    An object is known again by its address and its type: one that took the place of
    another of its type counts as that one.
    """

    data: str = field(validator=_data)
    paths: tuple[str, ...]
    grown: tuple[ObjectGroup, ...]
    """By type, the last dump against the first; only what differs, may be negative."""
    new: Amount
    """In the second and not in the first."""
    gone: Amount
    """In the first and not in the second."""
    stayed: Amount | None
    """Of the new ones those that are still in the third; None: there are two dumps."""
    new_by_type: tuple[ObjectGroup, ...]
    stayed_by_type: tuple[ObjectGroup, ...]
