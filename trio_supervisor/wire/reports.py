"""What a worker says of itself when it is looked into, as data.

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
    """Its variables, their values cut short. None: not asked for, or no room."""


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
    """From now on [s]; negative: it is over. None: it has none."""
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
    """``running``, ``runnable`` (it waits for its turn) or ``blocked``."""
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
    """Those that it entered itself and that say something, the outermost first."""


@frozen(kw_only=True)
class SchedulerReport:
    """The tasks of the main thread's event loop."""

    data: str = field(validator=_data)
    loops: tuple[str, ...] = ()
    """Those that run in the main thread: ``trio``, ``asyncio``; none: plain code."""
    tasks: tuple[Task, ...] = ()
    """Every parent before its children."""
    nurseries: tuple[Nursery, ...] = ()
    stacks: tuple[tuple[Frame, ...], ...] = ()
    """Each different one once, the innermost frame last."""
    omitted: int = field(default=0, validator=ge(0))
    """Tasks that there was no room for."""


# Locks.


@frozen(kw_only=True)
class LockHolder:
    """A thread that has what another one waits for, and where it took it."""

    thread: str
    ident: int
    is_sure: bool
    """False: concluded from where its code stands, between acquire and release."""
    file: str = ""
    line: int = 0
    function: str = ""


@frozen(kw_only=True)
class LockWait:
    """A thread that waits for a lock, or for another thread to end."""

    thread: str
    ident: int
    waits_for: str
    """The expression in its code and what it is, as ``self.lock (Lock)``."""
    file: str
    line: int
    function: str
    source: str
    holders: tuple[LockHolder, ...] = ()
    """Empty: not to be found out."""


@frozen(kw_only=True)
class Deadlock:
    """Threads of which each waits for the next, and the last for the first."""

    threads: tuple[str, ...]
    idents: tuple[int, ...]
    is_sure: bool
    """False: a holder in it was concluded, not known."""


@frozen(kw_only=True)
class LockReport:
    """Who waits for whom."""

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
    """Of all of them together [s]."""
    longest: float
    """[s]"""


@frozen(kw_only=True)
class PauseBucket:
    """How many pauses took up to so long, and longer than the bucket before."""

    up_to: float | None
    """[s]; None: any longer one."""
    count: int


@frozen(kw_only=True)
class GarbageReport:
    """What the garbage collector did in a period."""

    data: str = field(validator=_data)
    duration: float
    """The period [s]."""
    collections: int
    pause: float
    """Of all collections together [s]."""
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
    """Of the time of all running threads, from 0 to 1."""


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
    """As asked for [s]."""
    samples: int
    """Moments at which all threads were looked at."""
    running: float
    """Time of threads that ran or wanted to, together [s]."""
    waiting: float
    """Time of threads in a call that waits [s]."""
    tasks: float
    """Time of suspended tasks [s]."""
    overhead: float
    """Share of the duration that was spent in looking, from 0 to 1."""
    task_interval: float
    """Average time between two looks at the tasks [s]: they are dear to look at."""
    stacks: int
    """Different ones."""
    overflow: float
    """Time of stacks that there was no room for, counted as ``(other stacks)`` [s]."""
    hottest: tuple[HotLine, ...] = ()


# Stalls of the main loop.


@frozen(kw_only=True)
class Stall:
    """A time in which the main loop did not come round."""

    at: float
    """When it was noticed, by the system's clock since 1970 [s]."""
    duration: float
    """It took at least so long, and at most a look longer [s]."""
    is_over: bool
    task: str | None
    """The task that ran meanwhile, as far as it was seen."""
    frames: tuple[Frame, ...]
    """The main thread's stack, innermost last. Empty: it was over too soon."""
    is_interpreter_held: bool = False
    """No other thread ran either: C code kept the interpreter to itself, or the whole
    process was stopped."""


@frozen(kw_only=True)
class StallReport:
    """The main loop's stalls, the latest last."""

    data: str = field(validator=_data)
    loop: str | None
    """``trio``, ``asyncio``; None: there is none to be watched."""
    threshold: float
    """[s]"""
    watched: float
    """For how long [s]."""
    count: int = 0
    """All that there were; the latest of them are in *stalls*."""
    longest: float = 0.0
    """[s]"""
    stalls: tuple[Stall, ...] = ()


# Loaded code.


@frozen(kw_only=True)
class LoadedFile:
    """A source file of the application that a worker has loaded."""

    path: str
    after: float
    """A moment before it was loaded [s since the epoch]."""


@frozen(kw_only=True)
class LoadedReport:
    """The source files of the application, without what is installed."""

    data: str = field(validator=_data)
    files: tuple[LoadedFile, ...]


# Descriptors.


@frozen(kw_only=True)
class NamedCount:
    """Descriptors that lead to the same: a path, a peer."""

    name: str
    count: int


@frozen(kw_only=True)
class DescriptorKind:
    """The descriptors of one kind."""

    kind: str
    """``file``, ``tcp``, ``tcp listening``, ``unix``, ``pipe``, ``eventfd`` ..."""
    count: int
    names: tuple[NamedCount, ...]
    """Where the most of them lead to."""


@frozen(kw_only=True)
class DescriptorReport:
    """A census of the open descriptors."""

    data: str = field(validator=_data)
    total: int
    limit: int | None
    """How many this process may have open. None: as many as it likes."""
    kinds: tuple[DescriptorKind, ...]


@frozen(kw_only=True)
class DescriptorGrowth:
    """What grew between two censuses, the most first."""

    data: str = field(validator=_data)
    total: int
    """How many there are more now; negative: fewer."""
    kinds: tuple[DescriptorKind, ...]
    """Only those that grew, and by how much."""
