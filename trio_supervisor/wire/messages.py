"""The operations of protocol 1 and their results, as data. No bytes and no I/O here.

Each operation's name on the wire, its ``do``, stands in `OPERATIONS`; an operation that
is not in there is one that a service registered itself.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final, TypeAlias

from attrs import field, frozen
from attrs.validators import deep_iterable, ge, gt, instance_of, le, min_len, optional

Names: TypeAlias = tuple[str, ...]
"""Names of workers (``web.0``) or services (``web``: all of its workers)."""

_names: Any = deep_iterable(min_len(1))


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
    connection_id: str | None = None
    name: str | None = None
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
    reason: str = ""
    """For the log: who wants it and why."""
    incarnation: int | None = None
    """Only the worker that is still in this incarnation; else nothing is done."""


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
    """Stop everything, in order, the controller too."""


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


@frozen(kw_only=True)
class Update:
    """Replaces the supervisor's picture of *workers*; sent whole at first."""

    workers: tuple[WorkerRecord, ...]
    restarts: int = field(default=0, validator=ge(0))
    """Restarts of the supervisor itself."""


# What a worker answers.


@frozen(kw_only=True)
class ThreadDump:
    """The stacks of all threads; answered with a `ThreadReport`."""


Operation: TypeAlias = (
    Ping
    | Register
    | Status
    | Workers
    | Forward
    | Restart
    | Stop
    | Start
    | Shutdown
    | Cancel
    | Update
    | ThreadDump
)

OPERATIONS: Final = MappingProxyType[str, type[Operation]](
    {
        "ping": Ping,
        "register": Register,
        "status": Status,
        "workers": Workers,
        "forward": Forward,
        "restart": Restart,
        "stop": Stop,
        "start": Start,
        "shutdown": Shutdown,
        "cancel": Cancel,
        "update": Update,
        "thread_dump": ThreadDump,
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


@frozen(kw_only=True)
class SupervisorStatus:
    """The supervisor process."""

    process_id: int
    incarnation: int
    uptime: float
    """[s]"""


@frozen(kw_only=True)
class ControllerStatus:
    """The root process."""

    process_id: int
    version: str = ""


@frozen(kw_only=True)
class StatusReport:
    """The last answer to `Status` and to `Workers`."""

    supervisor: SupervisorStatus | None = None
    """None: a server that is not ours, as Ruby's, which knows connections alone."""
    controller: ControllerStatus | None = None
    workers: tuple[WorkerStatus, ...] = ()
    connections: tuple[Connection, ...] = ()


@frozen(kw_only=True)
class Frame:
    """One frame of a stack."""

    file: str
    line: int
    function: str
    source: str = ""
    """The text of the line, if it could be read."""


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
    """The answer to `ThreadDump`."""

    data: str = field(validator=instance_of(str))
    """The whole as text, as Ruby's clients expect it."""
    threads: tuple[ThreadStack, ...] = ()


RESULTS: Final = (Registered, StatusReport, ThreadReport)
"""The types of last answers."""
