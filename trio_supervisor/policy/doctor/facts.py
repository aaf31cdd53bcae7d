"""What a diagnosis of one worker is made of: numbers, and lines that show where.

A *series* is the same thing counted again and again, at even distances over the whole
examination. A *stack* has one line a frame, the innermost first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from attrs import frozen

Lines: TypeAlias = tuple[str, ...]
Series: TypeAlias = tuple[int, ...]

ENOUGH = 6
"""Counts: of so many at random, few are in such an order that they seem to rise."""


@frozen(kw_only=True)
class MainThreadFacts:
    """What the main thread did."""

    loop: str | None
    """``trio`` or ``asyncio``; None: a plain function, or a loop that is not known."""
    running: float
    """Share of the looks at it in which it was in no call that waits, from 0 to 1."""
    cpu: float | None = None
    """Processors that it used, from 0 to 1. None: this system does not tell."""
    queued: float = 0.0
    """How long it wanted to run and no processor was free [s]."""
    place: str = ""
    """The application's line that it was in in the most looks. Empty: none saw it."""
    share: float = 0.0
    """Of the looks that saw it there, from 0 to 1."""
    stack: Lines = ()
    """The stack that it most often had there."""
    silent: float = 0.0
    """At the end: for how long its loop had not come round [s]. 0: it did."""
    stalls: int = 0
    """Times that its loop did not come round for a while."""
    longest: float = 0.0
    """Of these [s]."""
    stall_place: str = ""
    """The application's line that it was in in the longest. Empty: it was not seen."""
    stall: Lines = ()
    """The stack of then."""
    is_held: bool = False
    """Whether no other thread could run either in one of them."""
    is_one_call: bool = False
    """Whether it never left the call of one function, nor called others for long."""
    has_turned: bool = False
    """Whether a plain function looked whether it is to stop."""
    lock: Lines = ()
    """The lock that it waited for in all pictures, and who holds it."""


@frozen(kw_only=True)
class DeadlockFacts:
    """Threads that wait for each other in all pictures."""

    threads: Lines
    has_main: bool
    is_sure: bool
    """False: that one of them holds a lock was concluded, not known."""
    lines: Lines
    """Who waits for what, where, and who holds it."""


@frozen(kw_only=True)
class HolderFacts:
    """Who holds objects that are new and were retained, or old ones that have grown."""

    memory: int
    """Of the new ones [bytes]."""
    count: int
    grown: int = 0
    """By how much old containers and buffers have grown [bytes]."""
    chain: Lines
    """From a root down to them."""
    title: str
    """The holder: of the application and old, the nearest to them in the chain."""
    is_known: bool = True
    """False: nothing that Python sees holds them."""


@frozen(kw_only=True)
class MemoryFacts:
    """The memory of the process."""

    resident: Series
    """[bytes]"""
    blocks: Series
    """Blocks that Python's allocator has given out."""
    free: int
    """What the process can get: of the host and within its limits [bytes]."""
    sampled: float = 0.0
    """For how long new objects were told from old ones [s]. 0: they were not."""
    holders: tuple[HolderFacts, ...] = ()
    """The largest first."""


@frozen(kw_only=True)
class GarbageFacts:
    """What the collector of garbage did."""

    share: float
    """Of the time, from 0 to 1."""
    collections: int
    longest: float
    """[s]"""
    generation: int
    """The one that took the most time."""
    place: str = ""
    """The application's line in which most of it began. Empty: none was seen."""
    share_of_place: float = 0.0
    """Of the time for collections, from 0 to 1."""
    stack: Lines = ()
    """The stack of that."""


@frozen(kw_only=True)
class DescriptorFacts:
    """The open descriptors."""

    counts: Series
    limit: int | None
    """None: there is none."""
    hung_up: int = 0
    """Sockets whose peer had hung up, at the start and at the end."""
    grown: Lines = ()
    """What there was more of at the end: kinds, and where they lead."""


@frozen(kw_only=True)
class GrowthFacts:
    """Threads, or tasks of the event loop."""

    counts: Series
    grown: Lines = ()
    """Where those wait of which there are more: the most first."""


@frozen(kw_only=True)
class Facts:
    """What was seen of one worker in *duration* seconds."""

    duration: float
    main: MainThreadFacts
    deadlocks: tuple[DeadlockFacts, ...]
    memory: MemoryFacts
    garbage: GarbageFacts | None
    """None: somebody else profiles it."""
    descriptors: DescriptorFacts
    tasks: GrowthFacts
    threads: GrowthFacts


def growth(series: Sequence[int]) -> int:
    """Return by how much the second half's least is above that of the first.

    What goes up and down, as memory between two collections, has not grown by that. In
    steady growth it is the growth of half of the time.
    """
    middle = len(series) // 2
    if not middle:
        return 0
    return min(series[middle:]) - min(series[:middle])


def largest_fall(series: Sequence[int]) -> int:
    """Return the most that it ever lost from a maximum before."""
    fall = top = 0
    for number, value in enumerate(series):
        top = value if number == 0 else max(top, value)
        fall = max(fall, top - value)
    return fall


def has_risen(series: Sequence[int], least: int) -> bool:
    """Whether it grew by *least* or more, and by far more than it goes up and down.

    Twice its largest fall: a worker with much to do has now more tasks, now fewer. Of
    fewer than `ENOUGH` counts nobody can tell.
    """
    is_clear = growth(series) >= max(least, 2 * largest_fall(series), 1)
    return is_clear and len(series) >= ENOUGH
