"""Events of a controller, each as fields and as one line for the log."""

from __future__ import annotations

import logging
import signal
from typing import Any, ClassVar, Final, TypeAlias

from attrs import asdict, frozen

from trio_supervisor.policy.crash_text import FAILED_TO_START, in_a_row
from trio_supervisor.policy.restart import CRASH_LOOP, Cause
from trio_supervisor.process.child import describe_exit

logger = logging.getLogger("trio_supervisor.controller")

_CAUSES: Final = {
    Cause.EXIT: "exit",
    Cause.SPAWN: FAILED_TO_START,
    Cause.NO_CODE: FAILED_TO_START,
    Cause.SHORTAGE: FAILED_TO_START,
    Cause.STARTUP_TIMEOUT: "startup timeout",
    Cause.UNHEALTHY: "health check timeout",
    Cause.RESTART: "restart requested",
    Cause.STOP: "stop requested",
    Cause.SCALE: "scaled down",
    Cause.RELOAD: "reload",
    Cause.LIFETIME: "lifetime over",
    Cause.MONITOR: "restart requested by a monitor",
    Cause.GROUP: "restart with its group",
}
# The reason given with one of these says it all.
_SAID_BY_REASON: Final = (Cause.STOP, Cause.LIFETIME)
_FEWER: Final = "; crash loop: from now on logging only crashes 8, 16, 32, ..."
_KILLED: Final = (-signal.SIGKILL, -signal.SIGTERM)


def cause_text(cause: Cause, reason: str = "") -> str:
    """Return why a process is stopped or started again.

    Args:
        reason: What the caller gave with its request; may be empty.
    """
    if reason and cause in _SAID_BY_REASON:
        return reason
    return f"{_CAUSES[cause]}: {reason}" if reason else _CAUSES[cause]


def exit_text(returncode: int | None) -> str:
    """Return how a process ended, as a predicate: ``exited with code 3``."""
    how = describe_exit(returncode)
    return how.replace("exit code", "exited with code", 1)


def _unless_repeat(level: int, is_repeat: bool) -> int:
    """Return *level*, or DEBUG for one of many crashes that the log leaves out."""
    return logging.DEBUG if is_repeat else level


@frozen(kw_only=True)
class ProcessStarted:
    """A process was started."""

    kind: ClassVar[str] = "started"
    name: str
    process_id: int
    incarnation: int
    generation: int = 1
    is_repeat: bool = False
    """Whether the log leaves it out: one of many crashes in a row."""

    @property
    def level(self) -> int:
        """INFO, or DEBUG for a repeat."""
        return _unless_repeat(logging.INFO, self.is_repeat)

    def __str__(self) -> str:
        again = f", incarnation {self.incarnation}" if self.incarnation > 1 else ""
        if self.generation > 1:
            again += f", generation {self.generation}"
        return f"started (pid {self.process_id}{again})"


@frozen(kw_only=True)
class WorkerReady:
    """A worker is ready."""

    kind: ClassVar[str] = "ready"
    name: str
    process_id: int
    seconds: float
    """Time since its process was started [s]."""
    is_repeat: bool = False
    """Whether the log leaves it out: one of many crashes in a row."""

    @property
    def level(self) -> int:
        """INFO, or DEBUG for a repeat."""
        return _unless_repeat(logging.INFO, self.is_repeat)

    def __str__(self) -> str:
        return f"ready in {self.seconds * 1000:.0f} ms (pid {self.process_id})"


@frozen(kw_only=True)
class CrashLoopEnded:
    """A worker in a crash loop has stayed ready for ``Backoff.stable_after``."""

    kind: ClassVar[str] = "crash_loop_over"
    level: ClassVar[int] = logging.INFO
    name: str
    process_id: int
    crashes: int
    """Crashes in a row before."""
    seconds: float
    """How long it has been ready and healthy [s]."""

    def __str__(self) -> str:
        return (
            f"ready for {self.seconds:.0f} s (stable_after, pid {self.process_id}) "
            f"after {self.crashes} crashes in a row; crash loop over"
        )


@frozen(kw_only=True)
class WorkerUnready:
    """A ready worker, or its readiness probe, reports that it is not ready."""

    kind: ClassVar[str] = "unready"
    level: ClassVar[int] = logging.WARNING
    name: str
    process_id: int
    reason: str
    """The status text of the worker; may be empty."""

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"no longer ready (pid {self.process_id}){why}"


@frozen(kw_only=True)
class StacksDumped:
    """The stacks of a process were taken before it is stopped or killed."""

    kind: ClassVar[str] = "evidence"
    name: str
    process_id: int
    cause: str
    """Why it is stopped, or ``stop_timeout`` where it is about to be killed."""
    stacks: str
    """Stacks of its threads and tasks, or why there are none."""
    is_repeat: bool = False
    """Whether the log leaves it out: one of many crashes in a row."""

    @property
    def level(self) -> int:
        """WARNING, or DEBUG for a repeat."""
        return _unless_repeat(logging.WARNING, self.is_repeat)

    def __str__(self) -> str:
        when, pid = "stopping", f"pid {self.process_id}"
        if self.cause == "stop_timeout":
            when, pid = "killing", f"stop_timeout, {pid}"
        return f"stack dump before {when} ({pid}):\n{self.stacks}"


@frozen(kw_only=True)
class ProcessStopping:
    """The controller stops a process."""

    kind: ClassVar[str] = "stopping"
    name: str
    process_id: int
    cause: str
    reason: str
    """The reason given with a request; may be empty."""
    problem: str = ""
    """What is wrong with the process; empty: nothing, the stop was requested."""
    setting: str = ""
    """The setting that makes this a reason to stop it."""
    is_repeat: bool = False
    """Whether the log leaves it out: one of many crashes in a row."""

    @property
    def level(self) -> int:
        """INFO, or DEBUG for a repeat."""
        return _unless_repeat(logging.INFO, self.is_repeat)

    def __str__(self) -> str:
        if self.problem:
            return f"{self.problem} ({self.setting}, pid {self.process_id}); stopping"
        why = cause_text(Cause(self.cause), self.reason)
        return f"stopping (pid {self.process_id}): {why}"


@frozen(kw_only=True)
class ProcessExited:
    """A process exited, and its process group is empty."""

    kind: ClassVar[str] = "exited"
    name: str
    process_id: int
    returncode: int | None
    is_planned: bool
    """Whether the exit followed a request to stop or restart it."""
    is_failure: bool
    """Whether it was neither planned nor one of the service's success exit codes."""
    next_step: str
    """What the controller does next."""
    last_lines: tuple[str, ...] = ()
    """The last lines of its output."""
    post_mortem: str = ""
    """Path of its post-mortem; empty: there is none."""
    crashes: int = 0
    """Crashes in a row, if it is restarted for a crash."""
    problem: str = ""
    """The known cause of the crash; may be empty."""
    last_line: str = ""
    """The one of *last_lines* that most likely names the cause."""
    is_repeat: bool = False
    """Whether the log leaves it out: one of many crashes in a row."""

    @property
    def level(self) -> int:
        """WARNING for a failure, else INFO; DEBUG for a repeat."""
        level = logging.WARNING if self.is_failure else logging.INFO
        return _unless_repeat(level, self.is_repeat)

    def __str__(self) -> str:
        how = f"{exit_text(self.returncode)} (pid {self.process_id})"
        why = f"; {self.problem}" if self.problem else ""
        # A process killed from outside prints nothing about it.
        has_last_line = self.is_failure and self.returncode not in _KILLED
        if has_last_line and self.last_line and not why:
            why = f"; last line: {self.last_line}"
        if self.crashes == CRASH_LOOP:
            why += _FEWER
        return f"{how}{in_a_row(self.crashes)}; {self.next_step}{why}"


@frozen(kw_only=True)
class StartFailed:
    """A process could not be started, or its start was cancelled."""

    kind: ClassVar[str] = "not_started"
    name: str
    problem: str
    next_step: str
    """What the controller does next."""
    crashes: int = 0
    """Failures in a row, if it is tried again."""
    is_repeat: bool = False
    """Whether the log leaves it out: one of many failures in a row."""
    is_shortage: bool = False
    """Whether the controller or the machine was short of resources."""
    is_cancelled: bool = False
    """Whether a stop or a restart was requested before the process was started."""

    @property
    def level(self) -> int:
        """ERROR, or INFO for a cancelled start; DEBUG for a repeat."""
        level = logging.INFO if self.is_cancelled else logging.ERROR
        return _unless_repeat(level, self.is_repeat)

    def __str__(self) -> str:
        if self.is_cancelled:
            return f"{self.problem}; {self.next_step}"
        again = in_a_row(self.crashes)
        fewer = _FEWER if self.crashes == CRASH_LOOP else ""
        return f"{FAILED_TO_START}: {self.problem}{again}; {self.next_step}{fewer}"


@frozen(kw_only=True)
class ShortageBegan:
    """Processes cannot be started for lack of descriptors, processes or memory."""

    kind: ClassVar[str] = "shortage"
    level: ClassVar[int] = logging.ERROR
    name: str
    worker: str
    """The first worker that could not be started."""
    problem: str

    def __str__(self) -> str:
        return (
            f"cannot start {self.worker}: {self.problem}; not counted as a crash, "
            f"retrying; running workers are not affected"
        )


@frozen(kw_only=True)
class ShortageEnded:
    """Processes can be started again."""

    kind: ClassVar[str] = "shortage_over"
    level: ClassVar[int] = logging.WARNING
    name: str
    failures: int
    """Starts that failed."""
    seconds: float
    """Duration of the shortage [s]."""

    def __str__(self) -> str:
        starts = "1 start" if self.failures == 1 else f"{self.failures} starts"
        return (
            f"processes can be started again after {self.seconds:.1f} s "
            f"({starts} failed)"
        )


@frozen(kw_only=True)
class GroupFailed:
    """A group reached its restart limit and is restarted as a whole."""

    kind: ClassVar[str] = "group_failed"
    level: ClassVar[int] = logging.ERROR
    name: str
    problem: str
    services: tuple[str, ...]
    """Services that are restarted."""

    def __str__(self) -> str:
        return f"{self.problem}; restarting {', '.join(self.services)}"


@frozen(kw_only=True)
class ServiceScaled:
    """The number of workers of a service was changed."""

    kind: ClassVar[str] = "scaled"
    level: ClassVar[int] = logging.INFO
    name: str
    before: int
    count: int

    def __str__(self) -> str:
        return f"scaled from {self.before} to {self.count}"


@frozen(kw_only=True)
class ReloadStarted:
    """A reload starts a new generation."""

    kind: ClassVar[str] = "reloading"
    level: ClassVar[int] = logging.INFO
    name: str
    generation: int
    plan: tuple[str, ...]
    """One line per service."""

    def __str__(self) -> str:
        return f"reloading, generation {self.generation}: {'; '.join(self.plan)}"


@frozen(kw_only=True)
class ReloadFinished:
    """The new generation is ready, and the previous one has stopped."""

    kind: ClassVar[str] = "reloaded"
    level: ClassVar[int] = logging.INFO
    name: str
    generation: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"reload finished: generation {self.generation} took over after "
            f"{self.seconds:.2f} s"
        )


@frozen(kw_only=True)
class WorkerStillFailing:
    """A worker fails in the new generation as in the previous one."""

    kind: ClassVar[str] = "still_failing"
    level: ClassVar[int] = logging.WARNING
    name: str
    problem: str

    def __str__(self) -> str:
        return (
            f"still failing, as in the previous generation: {self.problem}; "
            f"reload continues"
        )


@frozen(kw_only=True)
class ReloadFailed:
    """A reload failed; the previous generation keeps running."""

    kind: ClassVar[str] = "reload_failed"
    level: ClassVar[int] = logging.ERROR
    name: str
    generation: int
    """Number of the generation that failed."""
    problem: str

    def __str__(self) -> str:
        return (
            f"reload failed; generation {self.generation - 1} keeps running: "
            f"{self.problem}"
        )


@frozen(kw_only=True)
class RestartLimitReached:
    """The restart limit of a worker, or of its group, is reached."""

    kind: ClassVar[str] = "gave_up"
    level: ClassVar[int] = logging.ERROR
    name: str
    problem: str

    def __str__(self) -> str:
        return self.problem


@frozen(kw_only=True)
class ProcessStuck:
    """A process was killed, and has not exited yet."""

    kind: ClassVar[str] = "stuck"
    level: ClassVar[int] = logging.ERROR
    name: str
    process_id: int
    seconds: float
    """Time since it was told to stop [s]."""
    remaining: str = ""
    """State of the remaining processes of its group; may be empty."""

    def __str__(self) -> str:
        why = f" ({self.remaining})" if self.remaining else ""
        return (
            f"not stopped {self.seconds:.0f} s after the stop request, despite SIGKILL "
            f"(pid {self.process_id}); waiting{why}"
        )


@frozen(kw_only=True)
class SignalNotPermitted:
    """A process could not be stopped: it belongs to another user."""

    kind: ClassVar[str] = "not_permitted"
    level: ClassVar[int] = logging.ERROR
    name: str
    process_id: int
    problem: str
    """The process, and its user."""

    def __str__(self) -> str:
        return f"{self.problem}; it keeps running, no replacement is started"


@frozen(kw_only=True)
class StraysStopped:
    """Descendants that had left the process group of a worker were stopped."""

    kind: ClassVar[str] = "strays"
    level: ClassVar[int] = logging.INFO
    name: str
    process_ids: tuple[int, ...]
    commands: tuple[str, ...]
    """Their programs, in the same order."""

    def __str__(self) -> str:
        pairs = zip(self.process_ids, self.commands, strict=True)
        which = ", ".join(f"pid {pid} ({command})" for pid, command in pairs)
        return f"stopped descendants outside its process group: {which}"


@frozen(kw_only=True)
class ShutdownTimedOut:
    """Workers are killed to finish the shutdown within ``stop_timeout``."""

    kind: ClassVar[str] = "stop_timeout"
    level: ClassVar[int] = logging.WARNING
    name: str
    timeout: float
    """``stop_timeout`` of the application [s]."""
    left: tuple[str, ...]
    """Workers that still run."""

    def __str__(self) -> str:
        left = ", ".join(self.left) or "remaining processes"
        return (
            f"shutdown not finished in time (stop_timeout={self.timeout:g} s of the "
            f"application); killing {left}"
        )


@frozen(kw_only=True)
class ServingStarted:
    """The control socket listens, and all services are being started."""

    kind: ClassVar[str] = "serving"
    level: ClassVar[int] = logging.INFO
    name: str
    process_id: int
    socket: str

    def __str__(self) -> str:
        return f"serving at {self.socket} (pid {self.process_id})"


@frozen(kw_only=True)
class AllWorkersReady:
    """All workers that should run are ready for the first time."""

    kind: ClassVar[str] = "all_ready"
    level: ClassVar[int] = logging.INFO
    name: str
    workers: int
    """Workers that are ready."""
    seconds: float
    absent: tuple[str, ...] = ()
    """The others, each with its state: finished or stopped."""

    def __str__(self) -> str:
        after = f"after {self.seconds * 1000:.0f} ms"
        if not self.absent:
            return f"all {self.workers} workers ready {after}"
        return f"{self.workers} workers ready {after}; {', '.join(self.absent)}"


@frozen(kw_only=True)
class SupervisorConnected:
    """The supervisor is connected to the controller, at first or again."""

    kind: ClassVar[str] = "supervisor_connected"
    level: ClassVar[int] = logging.INFO
    name: str
    is_back: bool
    """Whether an earlier connection was lost."""

    def __str__(self) -> str:
        return "supervisor reconnected" if self.is_back else "supervisor connected"


@frozen(kw_only=True)
class SupervisorResynchronized:
    """The supervisor's table of workers was out of date and was sent again."""

    kind: ClassVar[str] = "supervisor_picture_differed"
    level: ClassVar[int] = logging.WARNING
    name: str
    workers: int
    """Workers that exist."""
    known: int
    """Workers in the supervisor's table."""

    def __str__(self) -> str:
        return (
            f"the supervisor's status table was out of date ({self.known} workers "
            f"instead of {self.workers}, or old values); sent again"
        )


@frozen(kw_only=True)
class SupervisorLost:
    """The connection to the supervisor was lost; the workers keep running."""

    kind: ClassVar[str] = "supervisor_lost"
    level: ClassVar[int] = logging.WARNING
    name: str

    def __str__(self) -> str:
        return (
            "supervisor connection lost; workers keep running, restarting the "
            "supervisor"
        )


@frozen(kw_only=True)
class OverloadBegan:
    """Most workers are late at the same time, and the machine is under pressure."""

    kind: ClassVar[str] = "overloaded"
    level: ClassVar[int] = logging.WARNING
    name: str
    late: int
    watched: int
    causes: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"machine overloaded: {self.late} of {self.watched} workers are late "
            f"({', '.join(self.causes)}); suspending startup_timeout and "
            f"health_check_timeout"
        )


@frozen(kw_only=True)
class CallDenied:
    """A worker made a call to the supervisor that its service may not make."""

    kind: ClassVar[str] = "denied"
    level: ClassVar[int] = logging.WARNING
    name: str
    process_id: int | None
    operation: str
    needed: str
    """The permission that ``may`` of its service lacks."""
    count: int = 1
    """Denied calls so far; reported for the first and at each doubling."""

    def __str__(self) -> str:
        times = f", {self.count} times" if self.count > 1 else ""
        return (
            f"call of {self.operation!r} denied (pid {self.process_id}{times}): "
            f'may does not include "{self.needed}"'
        )


@frozen(kw_only=True)
class OverloadEnded:
    """Most workers are on time again, or the pressure is gone."""

    kind: ClassVar[str] = "recovered"
    level: ClassVar[int] = logging.INFO
    name: str
    late: int
    watched: int

    def __str__(self) -> str:
        return (
            f"machine no longer overloaded: {self.late} of {self.watched} workers are "
            f"late; startup_timeout and health_check_timeout apply again"
        )


@frozen(kw_only=True)
class ShutdownStarted:
    """The controller shuts down."""

    kind: ClassVar[str] = "shutting_down"
    level: ClassVar[int] = logging.INFO
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.reason}; shutting down"


@frozen(kw_only=True)
class ShutdownFinished:
    """All processes have stopped."""

    kind: ClassVar[str] = "stopped"
    level: ClassVar[int] = logging.INFO
    name: str
    seconds: float

    def __str__(self) -> str:
        return f"everything stopped after {self.seconds * 1000:.0f} ms"


Event: TypeAlias = (
    ProcessStarted
    | WorkerReady
    | CrashLoopEnded
    | WorkerUnready
    | StacksDumped
    | ShortageBegan
    | ShortageEnded
    | GroupFailed
    | ServiceScaled
    | ReloadStarted
    | ReloadFinished
    | WorkerStillFailing
    | ReloadFailed
    | ProcessStopping
    | ProcessExited
    | StartFailed
    | RestartLimitReached
    | ProcessStuck
    | SignalNotPermitted
    | StraysStopped
    | ShutdownTimedOut
    | ServingStarted
    | AllWorkersReady
    | SupervisorConnected
    | SupervisorLost
    | SupervisorResynchronized
    | OverloadBegan
    | CallDenied
    | OverloadEnded
    | ShutdownStarted
    | ShutdownFinished
)


def event_fields(event: Event) -> dict[str, Any]:
    """Return the fields of *event* as JSON values, with its kind as ``event``."""
    fields = asdict(event)
    for name, value in fields.items():
        if isinstance(value, tuple):
            fields[name] = list(value)  # JSON has no tuples
    return {"event": event.kind, **fields}


def log_event(event: Event) -> None:
    """Log *event*: the default of ``on_event``."""
    logger.log(event.level, "%s", event, extra={"event": event_fields(event)})
