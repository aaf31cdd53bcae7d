"""The operations of protocol 1 and their results, as data. No bytes and no I/O here.

Each operation's name on the wire, its ``do``, stands in `OPERATIONS`; an operation that
is not in there is one that a service registered itself.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final, TypeAlias

from attrs import field, frozen
from attrs.validators import (
    deep_iterable,
    ge,
    gt,
    in_,
    le,
    matches_re,
    min_len,
    optional,
)

from trio_supervisor.wire.limits import MAX_NAME, MAX_TEXT

Names: TypeAlias = tuple[str, ...]
"""Names of workers (``web.0``) or services (``web``: all of its workers)."""


def _sized(what: str, most: int, least: int = 0) -> Any:
    """Return a validator of a text that does not repeat what may be long."""

    def check(_: object, attribute: Any, value: str) -> None:
        if not least <= len(value) <= most:
            raise ValueError(
                f"{attribute.name!r}: expected {what} of {least} to {most} characters, "
                f"got {len(value)}"
            )

    return check


_name: Any = _sized("a name", MAX_NAME, least=1)
_word: Any = _sized("a name", MAX_NAME)
_names: Any = deep_iterable(_name)
_path: Any = matches_re(r"[^\0]+")


# What the supervisor answers.


@frozen(kw_only=True)
class Ping:
    """Answered with nothing: the other side is there and reads."""


@frozen(kw_only=True)
class Register:
    """A worker says who it is; answered with a `Registered`."""

    state: dict[str, Any]
    """At least ``process_id``, which must be the caller's own."""


@frozen(kw_only=True)
class Status:
    """Answered with one intermediate answer a monitor, then a `StatusReport`."""


@frozen(kw_only=True)
class Workers:
    """The workers of a `StatusReport` alone, without the monitors."""

    wait_ready: bool = False
    """Answer only once all are ready and connected, or one failed for good."""


@frozen(kw_only=True)
class Forward:
    """Have one worker run *operation*, and pass its answers on."""

    operation: dict[str, Any]
    """``do`` and its arguments, as the worker is to get them."""
    connection_id: str | None = field(default=None, validator=optional(_word))
    name: str | None = field(default=None, validator=optional(_word))
    """The worker's name, in place of its connection."""
    timeout: float = field(default=60.0, validator=[gt(0), le(86_400)])
    """Time after which the caller is told that there was no answer [s]."""


@frozen(kw_only=True)
class Restart:
    """Restart workers gracefully: those of *names*, or all.

    Ruby's clients give a signal instead: ``"HUP"``, ``"INT"`` and ``"TERM"`` restart
    everything. A signal is never sent because a peer named it.
    """

    names: Names | None = field(default=None, validator=optional(_names))
    signal: str | None = None
    reason: str = field(default="", validator=_sized("a text", MAX_TEXT))
    """For the log: who wants it and why."""
    incarnation: int | None = None
    """Only the worker that is still in this incarnation; else nothing is done."""
    rolling: bool = False
    """A few at a time, each batch when the one before is ready."""
    max_unavailable: int = field(default=1, validator=ge(1))
    """With *rolling*: how many workers of one service may be away at once."""


@frozen(kw_only=True)
class Reload:
    """Import the application afresh; answered with a `ReloadReport` when it runs."""

    changed_only: bool = False
    """Keep the workers whose declaration and code are as they were."""
    dry_run: bool = False
    """Only say what would be done."""


@frozen(kw_only=True)
class AbortReload:
    """Give up the reload that is under way; answered when all is as it was."""


@frozen(kw_only=True)
class Scale:
    """Give services another number of workers; answered when they are ready."""

    counts: dict[str, int]
    """By the name of the service."""


@frozen(kw_only=True)
class Health:
    """How the application as a whole is; answered with a `HealthReport`."""

    kind: str = field(validator=in_(("startup", "readiness", "liveness")))


@frozen(kw_only=True)
class Denied:
    """The supervisor tells the controller that a worker asked what it may not."""

    name: str
    """The worker; ``pid-4711`` for a process that belongs to none that runs."""
    process_id: int | None
    operation: str
    """What it called."""
    needed: str
    """What ``may`` of its service would have to name."""
    count: int = field(default=1, validator=ge(1))
    """How often it has been denied that."""


@frozen(kw_only=True)
class Inspect:
    """Where the threads of a worker are, as far as that can be seen from outside.

    The supervisor asks the controller when the worker itself does not answer; the
    answer has ``way``, ``data``, and as ``switches`` how often each thread gave the
    processor back by itself. The way is ``kernel`` where nothing in it can run,
    ``memory`` or ``faulthandler`` where there are stacks, ``threads`` where only the
    kernel's view of each thread is known, ``ended`` where the process is gone (then
    with ``exit``, ``cause``, ``is_planned``, ``last_lines``, ``stacks`` and
    ``post_mortem``, the path of a file), or empty.
    """

    name: str
    process_id: int


@frozen(kw_only=True)
class Events:
    """What happened lately; the first intermediate answer has a snapshot, too."""

    follow: bool = False
    """Go on with what happens, until the call is cancelled."""


@frozen(kw_only=True)
class Logs:
    """What workers printed lately, in intermediate answers."""

    names: Names | None = field(default=None, validator=optional(_names))
    tail: int = field(default=100, validator=[ge(0), le(10_000)])
    """How many lines, of all of them together."""
    follow: bool = False
    """Go on with what they print, until the call is cancelled."""


@frozen(kw_only=True)
class Stop:
    """Stop workers and leave them stopped; answered when they are."""

    names: Names = field(validator=[_names, min_len(1)])


@frozen(kw_only=True)
class Start:
    """Start workers that are stopped or failed."""

    names: Names = field(validator=[_names, min_len(1)])


@frozen(kw_only=True)
class Shutdown:
    """Stop everything, in order, the controller too.

    Answered when that begins; where *wait* is set, an intermediate answer says that,
    and the last one that all workers have stopped.
    """

    wait: bool = False


@frozen(kw_only=True)
class Cancel:
    """Give up the call of that id, made over the same connection."""

    call: int = field(validator=ge(0))


# What the controller tells the supervisor, over a stream that only it has.


@frozen(kw_only=True)
class WorkerRecord:
    """What the controller knows of one worker."""

    name: str
    service: str
    state: str
    """A value of ``policy.lifecycle.State``."""
    process_id: int | None
    """None: there is no process at the moment."""
    incarnation: int = field(validator=ge(0))
    """Processes started so far; the first is 1."""
    restarts: int = field(validator=ge(0))
    """Restarts of any kind."""
    started_at: float | None
    """When the process was started, by the system's monotonic clock [s]."""
    ready_at: float | None = None
    """When it said that it is ready, by the same clock [s]."""
    status: str = ""
    """What it last said of itself (STATUS= of sd_notify)."""
    last_exit: str = ""
    """How its last incarnation ended, in words."""
    connects: bool = True
    """Whether it connects to the supervisor; a command does not."""
    generation: int = field(default=1, validator=ge(1))
    waiting_for: str = ""
    """What keeps it from being started, in words."""
    reason: str = ""
    """Why this incarnation took the place of the one before, in words."""
    needs: tuple[str, ...] = ()
    """What its service depends on, as ``db (ready)``."""
    is_stable: bool = True
    """Whether it has been ready for as long as its service says (``stable_for``)."""
    crashes: int = field(default=0, validator=ge(0))
    """How often it has ended in a row, since it ran well last."""
    next_try_at: float | None = None
    """In a backoff: when it is started again, by the system's monotonic clock [s]."""
    last_line: str = ""
    """What its last incarnation printed last."""
    problem: str = ""
    """What is known to have ended that, as ``port 80 is held by nginx, pid 7``."""
    counts: bool = True
    """Whether the application is not ready without it: false during a reload for the
    workers of the coming generation, and for those that are stopped for good."""

    may: tuple[str, ...] = ()
    """What its connections may ask of the supervisor."""

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from all others, during a reload too."""
        return self.name, self.generation


@frozen(kw_only=True)
class Gone:
    """A worker that will not come back: scaled down, or of an old generation."""

    name: str
    generation: int


@frozen(kw_only=True)
class Update:
    """What has changed of the workers; a snapshot replaces the whole picture."""

    workers: tuple[WorkerRecord, ...]
    gone: tuple[Gone, ...] = ()
    restarts: int = field(default=0, validator=ge(0))
    """Restarts of the supervisor itself."""
    is_last: bool = False
    """Whether another supervisor comes: this one is to accept nobody any more."""
    sequence: int = field(default=0, validator=ge(0))
    """Counts updates; one that does not follow the last one applied is refused."""
    is_snapshot: bool = False
    """Whether a snapshot begins: what is not in it is forgotten."""
    is_partial: bool = False
    """Whether the next update is part of the same snapshot."""
    digest: str = ""
    """Digest of all workers after this update, to compare; answered with an
    `UpdateReport`."""


# What a worker answers.


_duration: Any = [gt(0), le(3600)]


@frozen(kw_only=True)
class ThreadDump:
    """The stacks of all threads; answered with a `ThreadReport`."""

    locals: bool = False
    """Whether the values of variables are told, cut short."""


@frozen(kw_only=True)
class SchedulerDump:
    """The tasks of the event loop; answered with a `SchedulerReport`."""


@frozen(kw_only=True)
class LockDump:
    """Who waits for whom; answered with a `LockReport`."""


@frozen(kw_only=True)
class Descriptors:
    """What is open; answered with a `DescriptorReport`."""


@frozen(kw_only=True)
class SlowTasks:
    """What kept the main loop from coming round; answered with a `StallReport`."""


@frozen(kw_only=True)
class LoadedCode:
    """Which of the application's files are loaded; answered with a `LoadedReport`."""


@frozen(kw_only=True)
class MemorySample:
    """What is allocated in a period, and retained; answered with a `MemoryReport`."""

    duration: float = field(default=10.0, validator=_duration)
    """[s]"""
    engine: str = field(default="snapshots", validator=in_(("snapshots", "memray")))
    """``memray``: every allocation is traced; answered with an `AllocationReport`."""


@frozen(kw_only=True)
class AllocationTraceStart:
    """Have memray trace every allocation from now on."""


@frozen(kw_only=True)
class AllocationTraceStop:
    """End that; answered with an `AllocationReport`."""


@frozen(kw_only=True)
class MemoryDump:
    """Write the heap to a file; answered with a `DumpReport`."""

    path: str | None = field(default=None, validator=optional(_path))
    """Where nothing must be; None: a new file among the temporary ones."""
    values: bool = False
    """Whether strings and numbers are told, cut short: there may be secrets in them."""


@frozen(kw_only=True)
class GarbageProfile:
    """What the garbage collector does in a period; answered with a `GarbageReport`."""

    duration: float = field(default=10.0, validator=_duration)
    """[s]"""


@frozen(kw_only=True)
class GarbageProfileStart:
    """Begin such a period."""


@frozen(kw_only=True)
class GarbageProfileStop:
    """End it; answered with a `GarbageReport`."""


@frozen(kw_only=True)
class Profile:
    """Look at all threads again and again; answered with a `ProfileReport`."""

    duration: float = field(default=10.0, validator=_duration)
    """[s]"""
    interval: float = field(default=0.01, validator=[ge(0.001), le(10)])
    """Between two looks [s]."""
    format: str = "speedscope"
    """``speedscope`` or ``collapsed``."""


@frozen(kw_only=True)
class Doctor:
    """Look at everything for a while; answered with a `Diagnosis`."""

    duration: float = field(default=5.0, validator=_duration)
    """[s]"""


@frozen(kw_only=True)
class ListOperations:
    """What the worker answers, and what its service has added."""


Operation: TypeAlias = (
    Ping
    | Register
    | Status
    | Workers
    | Forward
    | Restart
    | Reload
    | AbortReload
    | Scale
    | Health
    | Inspect
    | Denied
    | Events
    | Logs
    | Stop
    | Start
    | Shutdown
    | Cancel
    | Update
    | ThreadDump
    | SchedulerDump
    | LockDump
    | Descriptors
    | SlowTasks
    | LoadedCode
    | MemorySample
    | AllocationTraceStart
    | AllocationTraceStop
    | MemoryDump
    | GarbageProfile
    | GarbageProfileStart
    | GarbageProfileStop
    | Profile
    | Doctor
    | ListOperations
)

OPERATIONS: Final = MappingProxyType[str, type[Operation]](
    {
        "ping": Ping,
        "register": Register,
        "status": Status,
        "workers": Workers,
        "forward": Forward,
        "restart": Restart,
        "reload": Reload,
        "abort_reload": AbortReload,
        "scale": Scale,
        "health": Health,
        "inspect": Inspect,
        "denied": Denied,
        "events": Events,
        "logs": Logs,
        "stop": Stop,
        "start": Start,
        "shutdown": Shutdown,
        "cancel": Cancel,
        "update": Update,
        "thread_dump": ThreadDump,
        "scheduler_dump": SchedulerDump,
        "lock_dump": LockDump,
        "descriptors": Descriptors,
        "slow_tasks": SlowTasks,
        "loaded_code": LoadedCode,
        "memory_sample": MemorySample,
        "allocation_trace_start": AllocationTraceStart,
        "allocation_trace_stop": AllocationTraceStop,
        "memory_dump": MemoryDump,
        "garbage_profile": GarbageProfile,
        "garbage_profile_start": GarbageProfileStart,
        "garbage_profile_stop": GarbageProfileStop,
        "profile": Profile,
        "doctor": Doctor,
        "operations": ListOperations,
    }
)
NAMES: Final = MappingProxyType({type_: do for do, type_ in OPERATIONS.items()})


# Results.


@frozen(kw_only=True)
class Registered:
    """The answer to `Register`."""

    connection_id: str


@frozen(kw_only=True)
class Connection:
    """A peer that registered, as Ruby's clients expect it."""

    connection_id: str
    process_id: int
    state: dict[str, Any]


@frozen(kw_only=True)
class WorkerStatus:
    """One worker, as controller and supervisor together see it."""

    name: str
    service: str | None
    process_id: int | None
    state: str
    connected: bool
    connection_id: str | None
    incarnation: int
    restarts: int
    uptime: float | None
    """Since its process was started [s]."""
    ready_for: float | None = None
    """Since it said that it is ready [s]."""
    status: str = ""
    last_exit: str = ""
    is_managed: bool = True
    """False: no child of the controller; it came to the socket by itself."""
    generation: int = 1
    waiting_for: str = ""
    """What keeps it from being started, in words."""
    reason: str = ""
    """Why this incarnation took the place of the one before, in words."""
    needs: tuple[str, ...] = ()
    """What its service depends on, as ``db (ready)``."""
    crashes: int = 0
    """How often it has ended in a row, since it ran well last."""
    next_try_in: float | None = None
    """In a backoff: time until it is started again [s]."""
    last_line: str = ""
    """What its last incarnation printed last."""
    problem: str = ""
    """What is known to have ended that, as ``port 80 is held by nginx, pid 7``."""


@frozen(kw_only=True)
class SupervisorStatus:
    """The supervisor process."""

    process_id: int
    incarnation: int
    uptime: float
    """[s]"""


@frozen(kw_only=True)
class UpdateReport:
    """The answer to an `Update` with a digest."""

    is_same: bool
    """Whether the supervisor's picture has the same digest."""
    workers: int = 0
    """Workers in the supervisor's picture."""


@frozen(kw_only=True)
class ControllerStatus:
    """The root process."""

    process_id: int
    version: str = ""
    state: str = ""
    """``stopped``: it was stopped by a signal, and cannot update the picture."""
    silent_for: float | None = None
    """Age of the picture, where the controller does not confirm it in time [s]."""


@frozen(kw_only=True)
class StatusReport:
    """The last answer to `Status` and to `Workers`."""

    supervisor: SupervisorStatus | None = None
    """None: a server that is not ours, as Ruby's, which knows connections alone."""
    controller: ControllerStatus | None = None
    workers: tuple[WorkerStatus, ...] = ()
    connections: tuple[Connection, ...] = ()


@frozen(kw_only=True)
class ReloadReport:
    """The answer to `Reload`."""

    generation: int
    """The one that runs now."""
    lines: tuple[str, ...]
    """What becomes, or became, of each service, in words."""
    services: tuple[dict[str, Any], ...] = ()
    """The same as fields."""
    not_ready: dict[str, str] = field(factory=dict)
    """Workers that failed before the reload and still do, and how."""


@frozen(kw_only=True)
class HealthReport:
    """The answer to `Health`."""

    is_ok: bool
    details: dict[str, Any] = field(factory=dict)
