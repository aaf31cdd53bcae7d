"""What is wrong with a worker that cannot answer. Pure, as all that a doctor says."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from trio_supervisor.policy.doctor.facts import Lines
from trio_supervisor.policy.doctor.findings import Certainty, Finding, Severity

_STACK_LINES: Final = 20


def stopped(state: str, process_id: int) -> Finding:
    """Return what it means that the kernel lets nothing in the process run.

    Args:
        state: What the kernel says, as ``it is stopped``.
    """
    return Finding(
        kind="stopped",
        title=f"the process {state.removeprefix('it ')}",
        text="The kernel says so. The worker does nothing for anybody until that ends.",
        evidence=(),
        advice=f"After SIGSTOP, `kill -CONT {process_id}` has it go on; what a "
        "debugger has stopped goes on when that lets it. A wait in the kernel ends "
        "with what it waits for, as a disk, or a file system on the network.",
        severity=Severity.STANDSTILL,
        certainty=Certainty.SURE,
    )


def held(place: str, stack: Lines, *, is_main: bool, duration: float) -> Finding:
    """Return what it means that one thread keeps the interpreter to itself.

    Args:
        place: The application's line that the thread is in.
        duration: For how long it was seen to do so [s].
    """
    thread = "the main thread" if is_main else "a thread"
    return Finding(
        kind="stuck",
        title=f"{thread} is stuck at {place}",
        text=f"In {duration:.1f} s no thread came a line further, nor did the worker "
        "answer: C code that is called there keeps the interpreter to itself.",
        evidence=stack,
        advice="Do not call there what computes or waits for long without releasing "
        "the interpreter's lock, or do so in a process of its own; give it less to do "
        "at a time. Only its end, or a restart, helps now: `restart NAME`; "
        "`thread-dump NAME` shows all threads.",
        severity=Severity.STANDSTILL,
        certainty=Certainty.SURE,
    )


def out_of_descriptors(open_now: int, limit: int) -> Finding:
    """Return what it means that hardly a descriptor is left."""
    return Finding(
        kind="descriptors",
        title="hardly any descriptors are left",
        text=f"There are {open_now} of {limit} allowed (RLIMIT_NOFILE).",
        evidence=(),
        advice="Close them where they were opened, by `with`; or raise the limit. "
        "`descriptors NAME` shows what is open.",
        severity=Severity.DANGER,
        certainty=Certainty.SURE,
    )


@frozen(kw_only=True)
class End:
    """What is known of the end of a process."""

    process_id: int
    exit: str
    """In words, as ``exit code 3``."""
    cause: str = ""
    """A value of ``policy.restart.Cause``; empty: not known yet."""
    is_planned: bool = False
    last_lines: Lines = ()
    """What it printed at last."""
    stacks: Lines = ()
    """Where it was."""
    post_mortem: str = ""
    """Path of a file; empty: there is none."""


def ended(end: End, successor: str) -> Finding:
    """Return what it means that a process ended while it was looked at.

    Args:
        successor: What is there in its place, in words.
    """
    why = f", {end.cause}" if end.cause and end.cause != "exit" else ""
    lines = [f"printed last: {line}" for line in end.last_lines]
    advice = f"`post-mortem {end.post_mortem}` shows all that is known."
    if not end.post_mortem:
        advice = "`logs NAME` shows what it printed, `events` what happened."
    return Finding(
        kind="ended",
        title=f"the process (pid {end.process_id}) ended while it was looked at: "
        f"{end.exit}{why}",
        text=("That was planned. " if end.is_planned else "") + successor,
        evidence=(*lines, *end.stacks[:_STACK_LINES]),
        advice=f"{advice} `doctor NAME` looks at the one that runs now.",
        severity=Severity.TROUBLE if end.is_planned else Severity.DANGER,
        certainty=Certainty.SURE,
    )


def down(name: str, state: str, why: str, last_lines: Lines) -> Finding:
    """Return what it means that there is no process to look at.

    Args:
        state: Of the worker, as ``backoff``.
        why: Its last exit and what it waits for, in words; empty: nothing is known.
    """
    is_meant = state == "stopped"
    different = tuple(dict.fromkeys(last_lines))
    return Finding(
        kind="down",
        title=f"{name} has no process: it is {state}",
        text=why,
        evidence=tuple(f"printed last: {line}" for line in different),
        advice=f"`start {name}` starts it."
        if is_meant
        else "`events` and `post-mortem` show why it ended.",
        severity=Severity.TROUBLE if is_meant else Severity.STANDSTILL,
        certainty=Certainty.SURE,
    )
