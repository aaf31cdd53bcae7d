"""Events of one process, each as fields and as one line for the log."""

from __future__ import annotations

import logging
import signal
from typing import ClassVar, Final

from attrs import frozen

from trio_supervisor.controller.event_texts import (
    FEWER,
    cause_text,
    exit_text,
    unless_repeat,
)
from trio_supervisor.policy.crash_text import FAILED_TO_START, in_a_row
from trio_supervisor.policy.restart import CRASH_LOOP, Cause

_KILLED: Final = (-signal.SIGKILL, -signal.SIGTERM)


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
        return unless_repeat(logging.INFO, self.is_repeat)

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
        return unless_repeat(logging.INFO, self.is_repeat)

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
        return unless_repeat(logging.WARNING, self.is_repeat)

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
        return unless_repeat(logging.INFO, self.is_repeat)

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
    kill_reason: str = ""
    """Who sent a SIGKILL that the controller did not send; else empty."""
    last_line: str = ""
    """The one of *last_lines* that most likely names the cause."""
    is_repeat: bool = False
    """Whether the log leaves it out: one of many crashes in a row."""

    @property
    def level(self) -> int:
        """WARNING for a failure, else INFO; DEBUG for a repeat."""
        level = logging.WARNING if self.is_failure else logging.INFO
        return unless_repeat(level, self.is_repeat)

    def __str__(self) -> str:
        details = f"{self.kill_reason}, " if self.kill_reason else ""
        how = f"{exit_text(self.returncode)} ({details}pid {self.process_id})"
        why = f"; {self.problem}" if self.problem else ""
        # A process killed from outside prints nothing about it.
        has_last_line = self.is_failure and self.returncode not in _KILLED
        if has_last_line and self.last_line and not why:
            why = f"; last line: {self.last_line}"
        if self.crashes == CRASH_LOOP:
            why += FEWER
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
        return unless_repeat(level, self.is_repeat)

    def __str__(self) -> str:
        if self.is_cancelled:
            return f"{self.problem}; {self.next_step}"
        again = in_a_row(self.crashes)
        fewer = FEWER if self.crashes == CRASH_LOOP else ""
        return f"{FAILED_TO_START}: {self.problem}{again}; {self.next_step}{fewer}"


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
