"""Find what is wrong with a worker that cannot answer. Pure."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from trio_supervisor.policy.doctor.facts import Lines
from trio_supervisor.wire.diagnosis import Certainty, Finding, Severity

_STACK_LINES: Final = 20


def stopped(state: str, process_id: int) -> Finding:
    """Return the finding for a process in which the kernel lets nothing run.

    Args:
        state: What the kernel reports, such as ``it is stopped``.
    """
    return Finding(
        kind="stopped",
        title=f"the process {state.removeprefix('it ')}",
        text="That is the kernel's process state. The worker does nothing until it "
        "changes.",
        evidence=(),
        advice=f"After SIGSTOP, continue it with `kill -CONT {process_id}`; a process "
        "that a debugger stopped continues when the debugger detaches. An "
        "uninterruptible wait ends when the disk or the network file system responds.",
        severity=Severity.STANDSTILL,
        certainty=Certainty.SURE,
    )


def held(place: str, stack: Lines, *, is_main: bool, duration: float) -> Finding:
    """Return the finding for a process in which one thread holds the GIL.

    Args:
        place: The application's line that the thread is at.
        duration: How long no thread moved [s].
    """
    thread = "the main thread" if is_main else "a thread"
    return Finding(
        kind="stuck",
        title=f"{thread} is blocked at {place}",
        text=f"C code called at {_file_and_line(place)} holds the GIL; no other "
        f"Python thread can run. For {duration:.1f} s no thread moved to another line, "
        "and the worker did not answer.",
        evidence=stack,
        advice="Avoid C calls that compute or wait for long without releasing the GIL: "
        "run them in a separate process, or on less data at a time. The worker "
        "continues when the call returns; `restart NAME` ends it now. "
        "`thread-dump NAME` shows all threads.",
        severity=Severity.STANDSTILL,
        certainty=Certainty.SURE,
    )


def _file_and_line(place: str) -> str:
    """Return ``file.py:7`` of ``file.py:7 in function: source``."""
    return place.partition(" in ")[0]


def out_of_descriptors(open_now: int, limit: int) -> Finding:
    """Return the finding for a process that is almost out of file descriptors."""
    return Finding(
        kind="descriptors",
        title="almost out of file descriptors",
        text=f"{open_now} file descriptors are open (limit {limit}, RLIMIT_NOFILE).",
        evidence=(),
        advice="Close them where they are opened, with a `with` block, or raise the "
        "limit. `descriptors NAME` shows what is open.",
        severity=Severity.DANGER,
        certainty=Certainty.SURE,
    )


@frozen(kw_only=True)
class End:
    """What is known about the exit of a process."""

    process_id: int
    exit: str
    """In words, such as ``exit code 3``."""
    cause: str = ""
    """A value of ``policy.restart.Cause``; empty: not known yet."""
    is_planned: bool = False
    last_lines: Lines = ()
    """The last lines of its output."""
    stacks: Lines = ()
    """Its last stacks."""
    post_mortem: str = ""
    """Path of the post-mortem file; empty: there is none."""


def ended(end: End, successor: str) -> Finding:
    """Return the finding for a process that exited during the examination.

    Args:
        successor: What runs in its place, in words.
    """
    why = f", {end.cause}" if end.cause and end.cause != "exit" else ""
    lines = [f"last output: {line}" for line in end.last_lines]
    advice = f"`post-mortem {end.post_mortem}` shows the full report."
    if not end.post_mortem:
        advice = "`logs NAME` shows its output, `events` what happened."
    return Finding(
        kind="ended",
        title=f"the process (pid {end.process_id}) exited during the examination: "
        f"{end.exit}{why}",
        text=("The exit was planned. " if end.is_planned else "") + successor,
        evidence=(*lines, *end.stacks[:_STACK_LINES]),
        advice=f"{advice} `doctor NAME` examines the process that runs now.",
        severity=Severity.TROUBLE if end.is_planned else Severity.DANGER,
        certainty=Certainty.SURE,
    )


def down(name: str, state: str, why: str, last_lines: Lines) -> Finding:
    """Return the finding for a worker without a process.

    Args:
        state: The worker's state, such as ``backoff``.
        why: Its last exit and what it waits for, in words; empty: unknown.
    """
    is_meant = state == "stopped"
    different = tuple(dict.fromkeys(last_lines))
    return Finding(
        kind="down",
        title=f"{name} is not running (state: {state})",
        text=why,
        evidence=tuple(f"last output: {line}" for line in different),
        advice=f"`start {name}` starts it."
        if is_meant
        else "`events` and `post-mortem` show why it exited.",
        severity=Severity.TROUBLE if is_meant else Severity.STANDSTILL,
        certainty=Certainty.SURE,
    )
