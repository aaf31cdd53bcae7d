"""Operations that the supervisor answers, and their results."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen
from attrs.validators import ge, gt, le, optional

from trio_supervisor.wire.limits import MAX_NAME
from trio_supervisor.wire.operation import Operation, Side, operation, sized
from trio_supervisor.wire.workers import Gone, WorkerRecord, WorkerStatus

_word: Any = sized("a name", MAX_NAME)


# Results.


@frozen(kw_only=True)
class RegisterReport:
    """The answer to `Register`."""

    connection_id: str


@frozen(kw_only=True)
class ConnectionStatus:
    """A connection that registered, as Ruby's clients expect it."""

    connection_id: str
    process_id: int
    state: dict[str, Any]


@frozen(kw_only=True)
class SupervisorStatus:
    """The supervisor process."""

    process_id: int
    incarnation: int
    uptime: float
    """[s]"""


@frozen(kw_only=True)
class ControllerStatus:
    """The controller, which is the root process."""

    process_id: int
    version: str = ""
    state: str = ""
    """``stopped``: a signal such as SIGSTOP stopped it, so workers are out of date."""
    silent_for: float | None = None
    """Age of what is known of the workers, if the controller is late [s]."""


@frozen(kw_only=True)
class StatusReport:
    """The last answer to `Status` and to `Workers`."""

    supervisor: SupervisorStatus | None = None
    """None: a foreign server such as Ruby's, which knows only connections."""
    controller: ControllerStatus | None = None
    workers: tuple[WorkerStatus, ...] = ()
    connections: tuple[ConnectionStatus, ...] = ()


@frozen(kw_only=True)
class UpdateReport:
    """The answer to an `Update` with a digest."""

    is_same: bool
    """Whether the digest of what the supervisor knows is the same."""
    workers: int = 0
    """Workers that the supervisor knows."""


# Calls of clients and workers.


@operation("ping", answered_by=(Side.SUPERVISOR, Side.WORKER))
@frozen(kw_only=True)
class Ping(Operation):
    """Check that the peer reads and answers; the answer is empty."""


@operation("register", answered_by=Side.SUPERVISOR, result=RegisterReport)
@frozen(kw_only=True)
class Register(Operation):
    """Register the calling process as a worker."""

    state: dict[str, Any]
    """At least ``process_id``, which must be the caller's own."""


@operation("status", answered_by=Side.SUPERVISOR, result=StatusReport, may="status")
@frozen(kw_only=True)
class Status(Operation):
    """Return the status; each monitor's comes first, in an intermediate answer."""


@operation("workers", answered_by=Side.SUPERVISOR, result=StatusReport, may="status")
@frozen(kw_only=True)
class Workers(Operation):
    """Return the status without monitors and connections."""

    wait_ready: bool = False
    """Wait until all workers are ready and connected, or one has failed for good."""


@operation("forward", answered_by=Side.SUPERVISOR, may="forward")
@frozen(kw_only=True)
class Forward(Operation):
    """Have one worker run *operation*, and pass its answers on."""

    operation: dict[str, Any]
    """``do`` and the arguments, as the worker is to receive them."""
    connection_id: str | None = field(default=None, validator=optional(_word))
    name: str | None = field(default=None, validator=optional(_word))
    """The worker's name, in place of its connection."""
    timeout: float = field(default=60.0, validator=[gt(0), le(86_400)])
    """Time after which the call fails with DeadlineExceeded [s]."""


@operation("cancel", answered_by=Side.CONNECTION)
@frozen(kw_only=True)
class Cancel(Operation):
    """Cancel a call that was made over the same connection."""

    call: int = field(validator=ge(0))
    """The ``id`` of that call."""


# Calls of the controller, over a stream that only it has.


@frozen(kw_only=True)
class DecideReport:
    """The answer to `Decide`."""

    decision: str = ""
    """Empty: the policy leaves the decision to the options."""


@operation(
    "decide",
    answered_by=Side.SUPERVISOR,
    called_by=Side.CONTROLLER,
    result=DecideReport,
)
@frozen(kw_only=True)
class Decide(Operation):
    """Have the application's policy decide about a worker."""

    hook: str
    """Name of the policy's method."""
    worker: dict[str, Any]
    """Fields of a `PolicyWorker`."""
    problem: str = ""
    exit: dict[str, Any] = field(factory=dict)
    """Fields of a `WorkerExit`."""


@operation(
    "update",
    answered_by=Side.SUPERVISOR,
    called_by=Side.CONTROLLER,
    result=UpdateReport,
)
@frozen(kw_only=True)
class Update(Operation):
    """Report changed workers; a snapshot replaces all that the supervisor knows."""

    workers: tuple[WorkerRecord, ...]
    gone: tuple[Gone, ...] = ()
    restarts: int = field(default=0, validator=ge(0))
    """Restarts of the supervisor itself."""
    is_last: bool = False
    """Whether another supervisor follows: this one stops accepting connections."""
    sequence: int = field(default=0, validator=ge(0))
    """Counts updates. One that does not follow the last applied one is refused."""
    is_snapshot: bool = False
    """Whether a snapshot begins: workers that are not in it are forgotten."""
    is_partial: bool = False
    """Whether the next update is part of the same snapshot."""
    digest: str = ""
    """Digest of all workers after this update, to compare; see `UpdateReport`."""
