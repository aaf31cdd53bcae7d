"""Operations that the controller answers, and their results.

The supervisor passes on those that clients call.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from attrs import field, frozen
from attrs.validators import deep_iterable, ge, gt, in_, le, min_len, optional

from trio_supervisor.wire.limits import MAX_CANARY, MAX_NAME, MAX_TEXT
from trio_supervisor.wire.operation import Operation, Side, operation, sized

Names: TypeAlias = tuple[str, ...]
"""Names of workers (``web.0``) or services (``web``: all of its workers)."""

_names: Any = deep_iterable(sized("a name", MAX_NAME, least=1))


_canary_for: Any = optional([gt(0), le(MAX_CANARY)])

# Results.


@frozen(kw_only=True)
class ReloadReport:
    """The answer to `Reload`."""

    generation: int
    """The generation that runs now."""
    lines: tuple[str, ...]
    """What changes, or changed, in each service, for people."""
    services: tuple[dict[str, Any], ...] = ()
    """The same as fields."""
    not_ready: dict[str, str] = field(factory=dict)
    """Workers that were failing before the reload and still are, and how."""
    canaries: tuple[str, ...] = ()
    """Workers that were tried before the others were started."""


@frozen(kw_only=True)
class HealthReport:
    """The answer to `Health`."""

    is_ok: bool
    details: dict[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class MetricsReport:
    """The answer to `ReadMetrics`."""

    data: str
    """Prometheus' text format, or OpenMetrics."""


# Parts of calls.


@frozen(kw_only=True)
class CallSpan:
    """A call that the supervisor has answered, as a span of a trace."""

    trace_id: str
    span_id: str
    parent_id: str = ""
    """The caller's span; empty: the caller sent none."""
    method: str
    """The operation; empty: there is none of that name."""
    start: int
    """When it arrived [ns since the epoch]."""
    end: int
    """When it was answered [ns since the epoch]."""
    caller: int | None = None
    """Process id of the caller."""
    names: tuple[str, ...] = ()
    """Workers or services that the call named; the first ones."""
    operation: str = ""
    """Of a ``forward``: the worker's operation."""
    error_class: str = ""
    """Why it failed, by the name on the wire; empty: it did not."""
    problem: str = ""
    """Message of that error."""
    is_cancelled: bool = False


# Calls of clients and workers.


@operation("restart", answered_by=Side.CONTROLLER, may="restart")
@frozen(kw_only=True)
class Restart(Operation):
    """Restart workers gracefully: those of *names*, or all.

    Ruby's clients give a signal instead: ``"INT"`` and ``"TERM"`` restart all workers,
    ``"HUP"`` reloads. A signal is never sent because a peer named it.
    """

    names: Names | None = field(default=None, validator=optional(_names))
    signal: str | None = None
    reason: str = field(default="", validator=sized("a text", MAX_TEXT))
    """For the log: who requested the restart, and why."""
    incarnation: int | None = None
    """Restart the worker only if it is still in this incarnation."""
    rolling: bool = False
    """Restart a few workers at a time, each batch once the previous one is ready."""
    max_unavailable: int = field(default=1, validator=ge(1))
    """With *rolling*: maximum workers per service restarted at once."""
    generation: int | None = None
    """With *incarnation*: the generation of the worker; null: the current one."""


@operation("reload", answered_by=Side.CONTROLLER, result=ReloadReport, may="reload")
@frozen(kw_only=True)
class Reload(Operation):
    """Import the application again and replace the workers with a new generation."""

    changed_only: bool = False
    """Keep the workers whose declaration and code have not changed."""
    dry_run: bool = False
    """Only report what would change."""
    canary: int | None = field(default=None, validator=optional(ge(1)))
    """Try at most this many new workers of each service first; null: none."""
    canary_for: float | None = field(default=None, validator=_canary_for)
    """With *canary*: how long they are compared with the old workers [s]; null: 60."""


@operation("abort_reload", answered_by=Side.CONTROLLER, may="reload")
@frozen(kw_only=True)
class AbortReload(Operation):
    """Abort the reload in progress; answered when the rollback is complete."""


@operation("scale", answered_by=Side.CONTROLLER, may="scale")
@frozen(kw_only=True)
class Scale(Operation):
    """Change the number of workers of services; answered when they are ready.

    The answer has ``not_ready``: workers that are not, and why.
    """

    counts: dict[str, int]
    """Number of workers by the name of the service."""


@operation("health", answered_by=Side.CONTROLLER, result=HealthReport, may="health")
@frozen(kw_only=True)
class Health(Operation):
    """Return the health of the application as a whole."""

    kind: str = field(validator=in_(("startup", "readiness", "liveness")))


@operation("metrics", answered_by=Side.CONTROLLER, result=MetricsReport, may="metrics")
@frozen(kw_only=True)
class ReadMetrics(Operation):
    """Return the metrics of the services, their workers and the controller."""

    per_worker: bool = False
    """Those of each worker's present process, rather than totals of each service."""
    openmetrics: bool = False
    """In the format OpenMetrics, rather than Prometheus' own."""


@operation("events", answered_by=Side.CONTROLLER, may="events", is_stream=True)
@frozen(kw_only=True)
class Events(Operation):
    """Return recent events in intermediate answers; the first has a snapshot."""

    follow: bool = False
    """Continue with new events until the call is cancelled."""


@operation("logs", answered_by=Side.CONTROLLER, may="logs", is_stream=True)
@frozen(kw_only=True)
class Logs(Operation):
    """Return recent output of workers in intermediate answers."""

    names: Names | None = field(default=None, validator=optional(_names))
    tail: int = field(default=100, validator=[ge(0), le(10_000)])
    """Number of recent lines, of all workers together."""
    follow: bool = False
    """Continue with new output until the call is cancelled."""


@operation("stop", answered_by=Side.CONTROLLER, may="stop")
@frozen(kw_only=True)
class Stop(Operation):
    """Stop workers with their dependents, and leave them stopped.

    The answer has ``stopped``: the names of the workers that were stopped.
    """

    names: Names = field(validator=[_names, min_len(1)])


@operation("start", answered_by=Side.CONTROLLER, may="start")
@frozen(kw_only=True)
class Start(Operation):
    """Start workers that are stopped or failed; answered when they are ready."""

    names: Names = field(validator=[_names, min_len(1)])


@operation("shutdown", answered_by=Side.CONTROLLER, may="shutdown")
@frozen(kw_only=True)
class Shutdown(Operation):
    """Stop all workers in order, then the controller; answered when that begins."""

    wait: bool = False
    """Send ``has_begun`` in an intermediate answer, and the last answer once all
    workers have stopped, with ``ends_process``."""


# Calls of the supervisor.


@operation("denied", answered_by=Side.CONTROLLER, called_by=Side.SUPERVISOR)
@frozen(kw_only=True)
class ReportDenial(Operation):
    """Report that a worker called an operation that ``may`` does not list."""

    name: str
    """The worker; ``pid-4711`` for a process that belongs to no running worker."""
    process_id: int | None
    operation: str
    """The operation that it called."""
    needed: str
    """What ``may`` of its service would have to list."""
    count: int = field(default=1, validator=ge(1))
    """Number of denials of that operation to that worker."""


@operation("spans", answered_by=Side.CONTROLLER, called_by=Side.SUPERVISOR)
@frozen(kw_only=True)
class ReportSpans(Operation):
    """Report calls that were answered, to be exported."""

    spans: tuple[CallSpan, ...]
    dropped: int = field(default=0, validator=ge(0))
    """Number of calls since the last report that are not in *spans*: too many."""


@operation("inspect", answered_by=Side.CONTROLLER, called_by=Side.SUPERVISOR)
@frozen(kw_only=True)
class Inspect(Operation):
    """Inspect from outside a worker that does not answer.

    The answer has ``way``, ``data``, and ``switches``: the number of voluntary context
    switches of each thread. The way is

    - ``kernel`` if nothing in the process can run;
    - ``memory`` or ``faulthandler`` if there are stacks;
    - ``threads`` if only the kernel's view of each thread is known;
    - ``ended`` if the process has exited: then the answer also has ``exit``, ``cause``,
      ``is_planned``, ``last_lines``, ``stacks`` and ``post_mortem`` (a path);
    - empty if nothing is known.
    """

    name: str
    process_id: int
