"""The measurements that a diagnosis is made from.

A *series* is one quantity, measured at regular intervals over the examination. A
*stack* has one line per frame, innermost first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from attrs import frozen

Lines: TypeAlias = tuple[str, ...]
Series: TypeAlias = tuple[int, ...]

ENOUGH = 6
"""Measurements: fewer of them often seem to rise by chance."""


@frozen(kw_only=True)
class MainThreadFacts:
    """What the main thread did."""

    loop: str | None
    """``trio`` or ``asyncio``; None: no event loop, or an unknown one."""
    running: float
    """Share of the samples in which it was in no blocking call, from 0 to 1."""
    cpu: float | None = None
    """CPU time per second, from 0 to 1. None: not measured on this system."""
    queued: float = 0.0
    """How long it was runnable without getting a CPU [s]."""
    place: str = ""
    """The application's line in most of the samples. Empty: in none."""
    share: float = 0.0
    """Share of the samples at `place`, from 0 to 1."""
    stack: Lines = ()
    """The most frequent stack at `place`."""
    silent: float = 0.0
    """How long the event loop has been blocked at the end [s]. 0: it is not."""
    stalls: int = 0
    """How often the event loop was blocked."""
    longest: float = 0.0
    """The longest of these stalls [s]."""
    stall_place: str = ""
    """The application's line during the longest stall. Empty: no sample of it."""
    stall: Lines = ()
    """The stack during the longest stall."""
    is_held: bool = False
    """Whether C code held the GIL during one of the stalls."""
    is_one_call: bool = False
    """Whether all samples are of one call of one function."""
    has_turned: bool = False
    """Whether a sync target checked ``stopping``: it makes progress."""
    lock: Lines = ()
    """The lock that it waited for in all lock samples, and the lock's owner."""


@frozen(kw_only=True)
class DeadlockFacts:
    """Threads that waited for each other in all lock samples."""

    threads: Lines
    has_main: bool
    is_sure: bool
    """False: the owner of one of the locks is inferred from the stack."""
    lines: Lines
    """Which thread waits for which lock, where, and which thread owns it."""


@frozen(kw_only=True)
class HolderFacts:
    """A holder of retained new objects, or of old containers that have grown."""

    memory: int
    """Size of the new objects [bytes]."""
    count: int
    grown: int = 0
    """Growth of old containers and buffers [bytes]."""
    chain: Lines
    """References from a root down to the objects."""
    title: str
    """The holder: the application's oldest object that is nearest to them."""
    is_known: bool = True
    """False: no Python object refers to them."""


@frozen(kw_only=True)
class MemoryFacts:
    """The memory of the process."""

    resident: Series
    """[bytes]"""
    blocks: Series
    """Blocks in use of Python's allocator."""
    free: int
    """What can still be allocated: on the host and within its limits [bytes]."""
    sampled: float = 0.0
    """Duration of the memory sample [s]. 0: there was none."""
    holders: tuple[HolderFacts, ...] = ()
    """The largest first."""


@frozen(kw_only=True)
class GarbageFacts:
    """What the garbage collector did."""

    share: float
    """Share of the time spent in garbage collection, from 0 to 1."""
    collections: int
    longest: float
    """[s]"""
    generation: int
    """The generation that took the most time."""
    place: str = ""
    """The application's line that triggered most of it. Empty: in no stack."""
    share_of_place: float = 0.0
    """Share of the collection time that `place` triggered, from 0 to 1."""
    stack: Lines = ()
    """A stack at `place`."""


@frozen(kw_only=True)
class DescriptorFacts:
    """The open file descriptors."""

    counts: Series
    limit: int | None
    """RLIMIT_NOFILE. None: unlimited."""
    hung_up: int = 0
    """Sockets whose peer had closed the connection, at the start and at the end."""
    grown: Lines = ()
    """Kinds and targets that had more descriptors at the end."""


@frozen(kw_only=True)
class GrowthFacts:
    """The number of threads, or of tasks of the event loop."""

    counts: Series
    grown: Lines = ()
    """Locations at which more of them wait than before, the most first."""


@frozen(kw_only=True)
class Facts:
    """All measurements of one worker during *duration* seconds."""

    duration: float
    main: MainThreadFacts
    deadlocks: tuple[DeadlockFacts, ...]
    memory: MemoryFacts
    garbage: GarbageFacts | None
    """None: another garbage profile was running."""
    descriptors: DescriptorFacts
    tasks: GrowthFacts
    threads: GrowthFacts


def growth(series: Sequence[int]) -> int:
    """Return by how much the minimum of the second half exceeds that of the first.

    A quantity that only goes up and down, such as memory between two collections, has
    no growth by this measure. In steady growth it is the growth in half of the time.
    """
    middle = len(series) // 2
    if not middle:
        return 0
    return min(series[middle:]) - min(series[:middle])


def largest_fall(series: Sequence[int]) -> int:
    """Return the largest fall below an earlier maximum."""
    fall = top = 0
    for number, value in enumerate(series):
        top = value if number == 0 else max(top, value)
        fall = max(fall, top - value)
    return fall


def has_risen(series: Sequence[int], least: int) -> bool:
    """Return whether it grew by *least* or more, and clearly beyond its fluctuation.

    That is twice its largest fall: the number of tasks of a busy worker goes up and
    down. Fewer than `ENOUGH` measurements prove nothing.
    """
    is_clear = growth(series) >= max(least, 2 * largest_fall(series), 1)
    return is_clear and len(series) >= ENOUGH
