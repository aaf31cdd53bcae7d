"""What is wrong with a worker that cannot answer. Pure, as all that a doctor says."""

from __future__ import annotations

from trio_supervisor.policy.doctor_facts import Lines
from trio_supervisor.policy.findings import Certainty, Finding, Severity


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
