"""What a controller has to tell: one object an event, in words and as fields."""

from __future__ import annotations

import logging
import signal
from typing import Any, ClassVar, Final, TypeAlias

from attrs import asdict, frozen

from trio_supervisor.policy.crash_text import in_a_row
from trio_supervisor.policy.restart import CRASH_LOOP, Cause
from trio_supervisor.process.child import describe_exit

logger = logging.getLogger("trio_supervisor.controller")

CAUSES: Final = {
    Cause.EXIT: "exit",
    Cause.SPAWN: "not started",
    Cause.NO_CODE: "not started, without its code",
    Cause.SHORTAGE: "not started for lack of resources",
    Cause.STARTUP_TIMEOUT: "not ready in time",
    Cause.UNHEALTHY: "no sign of life",
    Cause.RESTART: "restart",
    Cause.STOP: "stop",
    Cause.SCALE: "scaled down",
    Cause.RELOAD: "reload",
    Cause.LIFETIME: "end of its lifetime",
    Cause.MONITOR: "monitor",
    Cause.GROUP: "restarted with its group",
}
"""In words."""
_FEWER: Final = "; crash loop: from now on only each doubling is logged"
_KILLED: Final = (-signal.SIGKILL, -signal.SIGTERM)


def _folded(level: int, is_repeat: bool) -> int:
    """Return *level*, or that of what the log leaves out: one more of a crash loop."""
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
    """Whether it is one more of a crash loop."""

    @property
    def level(self) -> int:
        """Of no interest where it is a repeat."""
        return _folded(logging.INFO, self.is_repeat)

    def __str__(self) -> str:
        again = f", incarnation {self.incarnation}" if self.incarnation > 1 else ""
        if self.generation > 1:
            again += f", generation {self.generation}"
        return f"started (pid {self.process_id}{again})"


@frozen(kw_only=True)
class WorkerReady:
    """It said that it is ready."""

    kind: ClassVar[str] = "ready"
    name: str
    process_id: int
    seconds: float
    """Since it was started [s]."""
    is_repeat: bool = False
    """Whether it is one more of a crash loop."""

    @property
    def level(self) -> int:
        """Of no interest where it is a repeat."""
        return _folded(logging.INFO, self.is_repeat)

    def __str__(self) -> str:
        return f"ready in {self.seconds * 1000:.0f} ms (pid {self.process_id})"


@frozen(kw_only=True)
class CrashLoopEnded:
    """It has been ready and well for long enough: its crash loop is over."""

    kind: ClassVar[str] = "crash_loop_over"
    level: ClassVar[int] = logging.INFO
    name: str
    process_id: int
    crashes: int
    """How often it had ended in a row."""
    seconds: float
    """How long it has been ready and well [s]."""

    def __str__(self) -> str:
        return (
            f"ready for {self.seconds:.0f} s (pid {self.process_id}) after "
            f"{self.crashes} crashes in a row; crash loop over"
        )


@frozen(kw_only=True)
class WorkerUnready:
    """It said, or a probe says, that it cannot work at the moment."""

    kind: ClassVar[str] = "unready"
    level: ClassVar[int] = logging.WARNING
    name: str
    process_id: int
    reason: str
    """What it says of itself; may be empty."""

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"not ready any more (pid {self.process_id}){why}"


@frozen(kw_only=True)
class StacksDumped:
    """What was seen of a process that was about to be ended for its state."""

    kind: ClassVar[str] = "evidence"
    name: str
    process_id: int
    cause: str
    """Why it is ended."""
    stacks: str
    """Of its threads, as text; or what keeps it from saying."""
    is_repeat: bool = False
    """Whether it is one more of a crash loop."""

    @property
    def level(self) -> int:
        """Of no interest where it is a repeat."""
        return _folded(logging.WARNING, self.is_repeat)

    def __str__(self) -> str:
        return f"this is where it was (pid {self.process_id}):\n{self.stacks}"


@frozen(kw_only=True)
class ProcessStopping:
    """It was asked to end."""

    kind: ClassVar[str] = "stopping"
    name: str
    process_id: int
    cause: str
    reason: str
    """Who asked, and why; may be empty."""
    is_repeat: bool = False
    """Whether it is one more of a crash loop."""

    @property
    def level(self) -> int:
        """Of no interest where it is a repeat."""
        return _folded(logging.INFO, self.is_repeat)

    def __str__(self) -> str:
        cause = CAUSES[Cause(self.cause)]
        why = f": {self.reason}" if self.reason else ""
        return f"stopping (pid {self.process_id}), {cause}{why}"


@frozen(kw_only=True)
class ProcessExited:
    """It ended, and nothing of its group is left."""

    kind: ClassVar[str] = "exited"
    name: str
    process_id: int
    returncode: int | None
    is_planned: bool
    next_step: str
    """What is done about it."""
    last_lines: tuple[str, ...] = ()
    """What it wrote at last."""
    post_mortem: str = ""
    """The file with more of it; empty: there is none."""
    crashes: int = 0
    """How often it has ended in a row, where it is restarted for that."""
    problem: str = ""
    """What is known to have ended it."""
    last_line: str = ""
    """Of *last_lines*, the one that most likely says why."""
    is_repeat: bool = False
    """Whether it is one more of a crash loop."""

    @property
    def _is_fine(self) -> bool:
        return self.is_planned or self.returncode == 0

    @property
    def level(self) -> int:
        """A warning where it was not planned."""
        level = logging.INFO if self._is_fine else logging.WARNING
        return _folded(level, self.is_repeat)

    def __str__(self) -> str:
        how = describe_exit(self.returncode)
        if self.returncode is not None and self.returncode < 0:
            how = f"killed by {how}"
        again = in_a_row(self.crashes)
        why = f"; {self.problem}" if self.problem else ""
        # What was killed from outside has most likely said nothing of it.
        is_talkative = not (self._is_fine or self.returncode in _KILLED)
        if is_talkative and self.last_line and not why:
            why = f"; last line: {self.last_line}"
        if self.crashes == CRASH_LOOP:
            why += _FEWER
        return f"exited: {how} (pid {self.process_id}){again}; {self.next_step}{why}"


@frozen(kw_only=True)
class StartFailed:
    """The system could not start it."""

    kind: ClassVar[str] = "not_started"
    name: str
    problem: str
    next_step: str
    crashes: int = 0
    """How often it has ended in a row, where it is tried again."""
    is_repeat: bool = False
    """Whether it is one more of a crash loop, or of a shortage."""
    is_shortage: bool = False
    """Whether it failed for lack of resources of the controller, or of the machine."""

    @property
    def level(self) -> int:
        """Of no interest where it is a repeat."""
        return _folded(logging.ERROR, self.is_repeat)

    def __str__(self) -> str:
        again = in_a_row(self.crashes)
        fewer = _FEWER if self.crashes == CRASH_LOOP else ""
        return f"cannot be started: {self.problem}{again}; {self.next_step}{fewer}"


@frozen(kw_only=True)
class ShortageBegan:
    """Processes cannot be started for lack of descriptors, processes or memory."""

    kind: ClassVar[str] = "shortage"
    level: ClassVar[int] = logging.ERROR
    name: str
    worker: str
    """The first that could not be started."""
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
    """How many starts failed."""
    seconds: float
    """How long it lasted [s]."""

    def __str__(self) -> str:
        starts = "1 start" if self.failures == 1 else f"{self.failures} starts"
        return (
            f"processes can be started again after {self.seconds:.1f} s "
            f"({starts} failed)"
        )


@frozen(kw_only=True)
class GroupFailed:
    """A group failed: it is restarted as a whole."""

    kind: ClassVar[str] = "group_failed"
    level: ClassVar[int] = logging.ERROR
    name: str
    problem: str
    services: tuple[str, ...]
    """What is restarted for it."""

    def __str__(self) -> str:
        return f"{self.problem}; restarting {', '.join(self.services)}"


@frozen(kw_only=True)
class ServiceScaled:
    """A service has another number of workers now."""

    kind: ClassVar[str] = "scaled"
    level: ClassVar[int] = logging.INFO
    name: str
    before: int
    count: int

    def __str__(self) -> str:
        return f"scaled from {self.before} to {self.count}"


@frozen(kw_only=True)
class ReloadStarted:
    """A new generation is being made."""

    kind: ClassVar[str] = "reloading"
    level: ClassVar[int] = logging.INFO
    name: str
    generation: int
    plan: tuple[str, ...]
    """A line for each service."""

    def __str__(self) -> str:
        return f"reloading, generation {self.generation}: {'; '.join(self.plan)}"


@frozen(kw_only=True)
class ReloadFinished:
    """The new generation is ready, and the old one gone."""

    kind: ClassVar[str] = "reloaded"
    level: ClassVar[int] = logging.INFO
    name: str
    generation: int
    seconds: float

    def __str__(self) -> str:
        return f"generation {self.generation} took over after {self.seconds:.2f} s"


@frozen(kw_only=True)
class WorkerStillFailing:
    """A worker of a new generation failed as the one before it: no reason to stop."""

    kind: ClassVar[str] = "still_failing"
    level: ClassVar[int] = logging.WARNING
    name: str
    problem: str

    def __str__(self) -> str:
        return f"failed as in the previous generation: {self.problem}; reload continues"


@frozen(kw_only=True)
class ReloadFailed:
    """The old generation goes on."""

    kind: ClassVar[str] = "reload_failed"
    level: ClassVar[int] = logging.ERROR
    name: str
    generation: int
    problem: str

    def __str__(self) -> str:
        return f"the reload failed, all stays as it was: {self.problem}"


@frozen(kw_only=True)
class RestartLimitReached:
    """It ended too often: everything is stopped."""

    kind: ClassVar[str] = "gave_up"
    level: ClassVar[int] = logging.ERROR
    name: str
    problem: str

    def __str__(self) -> str:
        return f"gave up: {self.problem}"


@frozen(kw_only=True)
class ProcessStuck:
    """It was killed, and the kernel has not let it go yet."""

    kind: ClassVar[str] = "stuck"
    level: ClassVar[int] = logging.ERROR
    name: str
    process_id: int
    seconds: float
    """Since it was asked to end [s]."""
    remaining: str = ""
    """What is known of what has not ended; may be empty."""

    def __str__(self) -> str:
        why = f": {self.remaining}" if self.remaining else ""
        return (
            f"not gone {self.seconds:.0f} s after it was asked to end and killed "
            f"(pid {self.process_id}){why}"
        )


@frozen(kw_only=True)
class SignalNotPermitted:
    """It could not be ended: what is left of it belongs to another user."""

    kind: ClassVar[str] = "not_permitted"
    level: ClassVar[int] = logging.ERROR
    name: str
    process_id: int
    problem: str
    """Which process that is, and whose."""

    def __str__(self) -> str:
        return f"{self.problem}; it keeps running, and nothing is started in its place"


@frozen(kw_only=True)
class StraysStopped:
    """What had left the process group of one that ended was ended as well."""

    kind: ClassVar[str] = "strays"
    level: ClassVar[int] = logging.INFO
    name: str
    process_ids: tuple[int, ...]
    commands: tuple[str, ...]
    """Their programs, in the same order."""

    def __str__(self) -> str:
        pairs = zip(self.process_ids, self.commands, strict=True)
        which = ", ".join(f"pid {pid} ({command})" for pid, command in pairs)
        return f"stopped as well, outside its process group: {which}"


@frozen(kw_only=True)
class ShutdownTimedOut:
    """The application did not stop in time; what is left is killed."""

    kind: ClassVar[str] = "stop_timeout"
    level: ClassVar[int] = logging.WARNING
    name: str
    timeout: float
    """Within which all is to have ended [s]."""
    left: tuple[str, ...]
    """The workers that have not."""

    def __str__(self) -> str:
        left = ", ".join(self.left) or "what is left"
        return (
            f"not everything stops in time (stop_timeout={self.timeout:g} of the "
            f"application); killing {left}"
        )


@frozen(kw_only=True)
class ServingStarted:
    """The socket listens, and everything is being started."""

    kind: ClassVar[str] = "serving"
    level: ClassVar[int] = logging.INFO
    name: str
    process_id: int
    socket: str

    def __str__(self) -> str:
        return f"serving at {self.socket} (pid {self.process_id})"


@frozen(kw_only=True)
class AllWorkersReady:
    """Every worker that is to run is ready, for the first time."""

    kind: ClassVar[str] = "all_ready"
    level: ClassVar[int] = logging.INFO
    name: str
    workers: int
    """How many are ready."""
    seconds: float
    absent: tuple[str, ...] = ()
    """The others, each with the reason: done, or stopped."""

    def __str__(self) -> str:
        after = f"after {self.seconds * 1000:.0f} ms"
        if not self.absent:
            return f"all {self.workers} workers ready {after}"
        return f"{self.workers} workers ready {after}; {', '.join(self.absent)}"


@frozen(kw_only=True)
class SupervisorConnected:
    """The supervisor listens to the controller: at first, and after each loss."""

    kind: ClassVar[str] = "supervisor_connected"
    level: ClassVar[int] = logging.INFO
    name: str
    is_back: bool

    def __str__(self) -> str:
        return "supervisor is back" if self.is_back else "supervisor connected"


@frozen(kw_only=True)
class SupervisorResynchronized:
    """The supervisor's picture of the workers was not the controller's."""

    kind: ClassVar[str] = "supervisor_picture_differed"
    level: ClassVar[int] = logging.WARNING
    name: str
    workers: int
    """Workers that there are."""
    known: int
    """Workers in the supervisor's picture."""

    def __str__(self) -> str:
        return (
            f"status differed from the controller's records ({self.known} workers "
            f"instead of {self.workers}, or outdated ones); sent again"
        )


@frozen(kw_only=True)
class SupervisorLost:
    """The supervisor is gone; the workers go on."""

    kind: ClassVar[str] = "supervisor_lost"
    level: ClassVar[int] = logging.WARNING
    name: str

    def __str__(self) -> str:
        return "supervisor lost; the workers go on, and another is started"


@frozen(kw_only=True)
class OverloadBegan:
    """Most workers are late at once, and the machine is under pressure."""

    kind: ClassVar[str] = "overloaded"
    level: ClassVar[int] = logging.WARNING
    name: str
    late: int
    watched: int
    causes: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"machine overloaded: {self.late} of {self.watched} workers are late "
            f"({', '.join(self.causes)}); not restarting any for a timeout"
        )


@frozen(kw_only=True)
class CallDenied:
    """A worker asked of the supervisor what it may not."""

    kind: ClassVar[str] = "denied"
    level: ClassVar[int] = logging.WARNING
    name: str
    process_id: int | None
    operation: str
    needed: str
    """What ``may`` of its service would have to name."""
    count: int = 1
    """How often that was denied: told of the first, and at each doubling."""

    def __str__(self) -> str:
        times = f", {self.count} times" if self.count > 1 else ""
        return (
            f"not permitted to call {self.operation!r} (pid {self.process_id}{times}; "
            f'may has no "{self.needed}")'
        )


@frozen(kw_only=True)
class OverloadEnded:
    """Most workers give signs of life again, or the pressure is gone."""

    kind: ClassVar[str] = "recovered"
    level: ClassVar[int] = logging.INFO
    name: str
    late: int
    watched: int

    def __str__(self) -> str:
        return (
            f"machine no longer overloaded: {self.late} of {self.watched} workers are "
            f"late; timeouts count again"
        )


@frozen(kw_only=True)
class ShutdownStarted:
    """Everything is being stopped."""

    kind: ClassVar[str] = "shutting_down"
    level: ClassVar[int] = logging.INFO
    name: str
    reason: str

    def __str__(self) -> str:
        return f"stopping everything: {self.reason}"


@frozen(kw_only=True)
class ShutdownFinished:
    """Nothing is left."""

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
    """Return *event* as JSON values, with its kind as ``event``."""
    fields = asdict(event)
    for name, value in fields.items():
        if isinstance(value, tuple):
            fields[name] = list(value)  # as JSON has it
    return {"event": event.kind, **fields}


def log_event(event: Event) -> None:
    """Write *event* to this package's log."""
    logger.log(event.level, "%s", event, extra={"event": event_fields(event)})
