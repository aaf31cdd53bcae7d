"""Results of a worker's diagnostic operations, as data.

Nothing here nests deeper than a few levels, however deep the tasks or stacks of the
worker do: the protocol limits nesting. A tree is a list whose items name their parent.
"""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, instance_of

_data = instance_of(str)


# Stacks of threads.


@frozen(kw_only=True)
class Frame:
    """One frame of a stack."""

    file: str
    line: int
    function: str
    source: str = ""
    """The text of the line, if it could be read."""
    locals: dict[str, str] | None = None
    """Its variables, with abbreviated values. None: not requested, or omitted."""


@frozen(kw_only=True)
class ThreadStack:
    """One thread and its stack, the innermost frame last."""

    name: str
    ident: int
    is_daemon: bool
    is_main: bool
    frames: tuple[Frame, ...]


@frozen(kw_only=True)
class ThreadReport:
    """The stacks of all threads."""

    data: str = field(validator=_data)
    """The whole as text, as Ruby's clients expect it."""
    threads: tuple[ThreadStack, ...] = ()


# Tasks.


@frozen(kw_only=True)
class Scope:
    """A cancel scope that a task or a nursery is in."""

    deadline: float | None
    """Time until the deadline [s]; negative: expired. None: no deadline."""
    is_cancelled: bool
    is_shielded: bool


@frozen(kw_only=True)
class Nursery:
    """A nursery of trio."""

    id: int
    task: int
    """The task that opened it."""
    scope: Scope


@frozen(kw_only=True)
class Task:
    """One task of trio or asyncio."""

    id: int
    name: str
    loop: str
    """``trio`` or ``asyncio``."""
    state: str
    """``running``, ``runnable`` (waiting for its turn) or ``blocked``."""
    stack: int
    """Its await frames: an index into the report's ``stacks``."""
    nursery: int | None = None
    """The nursery that it runs in. None: the root task, or one of asyncio."""
    awaited_by: tuple[int, ...] = ()
    """The tasks that wait for this one to end (asyncio)."""
    is_system: bool = False
    """Whether it belongs to the event loop, not to the application."""
    is_cancelled: bool = False
    """Whether its next wait will raise, or the present one just did."""
    scopes: tuple[Scope, ...] = ()
    """Scopes that it entered itself and that matter, the outermost first."""


@frozen(kw_only=True)
class SchedulerReport:
    """The tasks of the main thread's event loop."""

    data: str = field(validator=_data)
    loops: tuple[str, ...] = ()
    """Event loops of the main thread: ``trio``, ``asyncio``; empty: plain code."""
    tasks: tuple[Task, ...] = ()
    """All tasks, each parent before its children."""
    nurseries: tuple[Nursery, ...] = ()
    stacks: tuple[tuple[Frame, ...], ...] = ()
    """Distinct stacks, each with the innermost frame last."""
    omitted: int = field(default=0, validator=ge(0))
    """Number of tasks omitted for lack of room."""


# Locks.


@frozen(kw_only=True)
class LockHolder:
    """A thread that holds a lock, and where it acquired it."""

    thread: str
    ident: int
    is_sure: bool
    """False: inferred from its code being between acquire and release."""
    file: str = ""
    line: int = 0
    function: str = ""


@frozen(kw_only=True)
class LockWait:
    """A thread that waits for a lock, or for another thread to end."""

    thread: str
    ident: int
    waits_for: str
    """The lock's expression and type, such as ``self.lock (Lock)``."""
    file: str
    line: int
    function: str
    source: str
    holders: tuple[LockHolder, ...] = ()
    """Empty: unknown."""


@frozen(kw_only=True)
class Deadlock:
    """A deadlock: each thread waits for the next, the last for the first."""

    threads: tuple[str, ...]
    idents: tuple[int, ...]
    is_sure: bool
    """False: one of its holders was inferred."""


@frozen(kw_only=True)
class LockReport:
    """Which thread waits for which lock, its holder, and deadlocks."""

    data: str = field(validator=_data)
    waits: tuple[LockWait, ...] = ()
    deadlocks: tuple[Deadlock, ...] = ()


# Collections of garbage.


@frozen(kw_only=True)
class GenerationPauses:
    """The collections of one generation, oldest objects in the last."""

    generation: int
    collections: int
    collected: int
    """Objects that were freed."""
    uncollectable: int
    pause: float
    """Total duration of the collections [s]."""
    longest: float
    """[s]"""


@frozen(kw_only=True)
class PauseBucket:
    """Number of pauses up to this bound and above the previous bucket's."""

    up_to: float | None
    """Upper bound [s]; None: unbounded."""
    count: int


@frozen(kw_only=True)
class GarbageReport:
    """What the garbage collector did in a period."""

    data: str = field(validator=_data)
    duration: float
    """The period [s]."""
    collections: int
    pause: float
    """Total duration of all collections [s]."""
    longest: float
    """[s]"""
    collected: int
    uncollectable: int
    generations: tuple[GenerationPauses, ...]
    histogram: tuple[PauseBucket, ...]


# Profiles.


@frozen(kw_only=True)
class HotLine:
    """A line that was the innermost of a running thread's stack."""

    file: str
    line: int
    function: str
    time: float
    """[s]"""
    share: float
    """Share of the time of all running threads, from 0 to 1."""


@frozen(kw_only=True)
class ProfileReport:
    """A sampling profile."""

    data: str = field(validator=_data)
    """The profile itself, in *format*."""
    format: str
    """``speedscope`` or ``collapsed``."""
    duration: float
    """[s]"""
    interval: float
    """Requested interval between samples [s]."""
    samples: int
    """Number of samples of all threads."""
    running: float
    """Total time of threads that ran or were runnable [s]."""
    waiting: float
    """Time of threads in a call that waits [s]."""
    tasks: float
    """Time of suspended tasks [s]."""
    overhead: float
    """Overhead: share of the duration spent sampling, from 0 to 1."""
    task_interval: float
    """Average time between samples of the tasks [s]: they are expensive."""
    stacks: int
    """Number of distinct stacks."""
    overflow: float
    """Time of stacks that were omitted, counted as ``(other stacks)`` [s]."""
    hottest: tuple[HotLine, ...] = ()


# Stalls of the main loop.


@frozen(kw_only=True)
class Stall:
    """A period in which the event loop of the main thread was blocked."""

    at: float
    """When it was detected [s since the epoch]."""
    duration: float
    """Least duration; it is at most one sampling interval longer [s]."""
    is_over: bool
    task: str | None
    """The task that blocked the loop, if known."""
    frames: tuple[Frame, ...]
    """The main thread's stack, innermost frame last. Empty: too short to sample."""
    is_interpreter_held: bool = False
    """Whether no other thread ran either: C code held the GIL, or the whole process was
    stopped."""


@frozen(kw_only=True)
class StallReport:
    """Periods in which the main event loop was blocked, the latest last."""

    data: str = field(validator=_data)
    loop: str | None
    """``trio`` or ``asyncio``; None: no event loop."""
    threshold: float
    """[s]"""
    watched: float
    """How long the loop has been watched [s]."""
    count: int = 0
    """Number of all stalls; the latest ones are in *stalls*."""
    longest: float = 0.0
    """[s]"""
    stalls: tuple[Stall, ...] = ()


# Loaded code.


@frozen(kw_only=True)
class LoadedFile:
    """A source file of the application that a worker has loaded."""

    path: str
    after: float
    """A time before it was loaded [s since the epoch]."""


@frozen(kw_only=True)
class LoadedReport:
    """Source files of the application, without installed packages."""

    data: str = field(validator=_data)
    files: tuple[LoadedFile, ...]


# Descriptors.


@frozen(kw_only=True)
class NamedCount:
    """Descriptors with the same target, such as a path or a peer."""

    name: str
    count: int


@frozen(kw_only=True)
class DescriptorKind:
    """The descriptors of one kind."""

    kind: str
    """``file``, ``tcp``, ``tcp listening``, ``unix``, ``pipe``, ``eventfd`` ..."""
    count: int
    names: tuple[NamedCount, ...]
    """The most frequent targets."""


@frozen(kw_only=True)
class DescriptorReport:
    """A census of the open descriptors."""

    data: str = field(validator=_data)
    total: int
    limit: int | None
    """Maximum number of open descriptors (RLIMIT_NOFILE). None: unlimited."""
    kinds: tuple[DescriptorKind, ...]


@frozen(kw_only=True)
class DescriptorGrowth:
    """Growth between two censuses, the largest first."""

    data: str = field(validator=_data)
    total: int
    """Change in the total number; negative: fewer."""
    kinds: tuple[DescriptorKind, ...]
    """Kinds that grew, and by how much."""
