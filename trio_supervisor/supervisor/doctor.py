"""Diagnose a process without an agent: a command, or a process that has exited.

The facts come from the operating system and from the controller. The diagnosis lists
the process's code as not examined.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

import trio
from attrs import frozen

from trio_supervisor.diagnostics.diagnosis_text import describe
from trio_supervisor.policy.doctor.findings import size
from trio_supervisor.policy.doctor.growth import FULL
from trio_supervisor.policy.doctor.unresponsive import (
    End,
    down,
    ended,
    out_of_descriptors,
    stopped,
)
from trio_supervisor.process.inspection.inspection import FROZEN
from trio_supervisor.process.inspection.kernel_threads import ThreadView, view_threads
from trio_supervisor.wire.codec import to_fields
from trio_supervisor.wire.diagnosis import Diagnosis, Finding
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.workers import WorkerRecord

_SHOWN: Final = 5
"""Threads and children shown."""
_LAST_LINES: Final = 3
"""Lines of output shown."""


@frozen(kw_only=True)
class ProcessSample:
    """What the system reports of a process at one moment."""

    at: float
    threads: tuple[ThreadView, ...]
    processor: float
    """CPU time of the process and its exited children [s]."""
    resident: int
    """[bytes]"""
    descriptors: int | None
    limit: int | None
    children: tuple[str, ...]

    @classmethod
    def take(cls, process_id: int) -> ProcessSample | None:
        """ProcessSample a process; None: it has exited, or access is denied."""
        import psutil

        try:
            process = psutil.Process(process_id)
            with process.oneshot():
                times, memory = process.cpu_times(), process.memory_info()
            children = tuple(map(_describe, process.children(recursive=True)))
        except psutil.Error:
            return None
        descriptors = limit = None
        with suppress(psutil.Error, AttributeError, OSError):
            descriptors = process.num_fds()
            limit = process.rlimit(psutil.RLIMIT_NOFILE)[0]
        return cls(
            at=time.monotonic(),
            threads=view_threads(process_id),
            processor=times.user + times.system,
            resident=memory.rss,
            descriptors=descriptors,
            limit=limit,
            children=tuple(child for child in children if child),
        )


def _describe(child: object) -> str:
    import psutil

    assert isinstance(child, psutil.Process)
    with suppress(psutil.Error):
        return f"{child.name()} (pid {child.pid}, {child.status()})"
    return ""


async def examine_from_outside(
    record: WorkerRecord,
    duration: float,
    last_lines: tuple[str, ...],
    problem: str = "",
) -> Object | None:
    """Return the fields of a `Diagnosis` of a process whose agent does not answer.

    Return None if the process exits during the examination. A cancellation leaves
    nothing behind.

    Args:
        problem: Why its agent, which answers, cannot examine it.
    """
    if record.process_id is None:
        await trio.lowlevel.checkpoint()
        why = [record.last_exit and f"Last exit: {record.last_exit}."]
        why.append(record.waiting_for and f"Waiting for {record.waiting_for}.")
        text = " ".join(word for word in why if word)
        finding = down(record.name, record.state, text, last_lines)
        return _fields([finding], 0.0, [_history(record)], _WITHOUT_PROCESS)
    first = await trio.to_thread.run_sync(ProcessSample.take, record.process_id)
    await trio.sleep(duration)
    last = await trio.to_thread.run_sync(ProcessSample.take, record.process_id)
    if first is None or last is None or not last.threads:
        return None
    state = FROZEN.get(last.threads[0].state)
    findings = [] if state is None else [stopped(state, record.process_id)]
    if last.limit is not None and (last.descriptors or 0) >= FULL * last.limit:
        findings.append(out_of_descriptors(last.descriptors or 0, last.limit))
    lines = [*_describe_samples(first, last), _history(record)]
    lines += [f"last output: {line}" for line in last_lines[-_LAST_LINES:]]
    left_out = _COMMAND if not record.connects else _NOT_CONNECTED
    if problem:
        left_out = (f"its Python code: {problem}",)
    return _fields(findings, last.at - first.at, lines, left_out)


def diagnose_end(
    record: WorkerRecord, end: Object, duration: float, now: WorkerRecord | None
) -> Object:
    """Return the fields of a `Diagnosis` of a process that exited while examined.

    Args:
        record: Its record before it exited.
        end: The answer to `Inspect`.
        now: Record of the worker now; None: the worker was removed.
    """
    finding = ended(
        End(
            process_id=record.process_id or 0,
            exit=", ".join(filter(None, (end.get("exit", ""), end.get("problem", "")))),
            cause=str(end.get("cause", "")),
            is_planned=bool(end.get("is_planned")),
            last_lines=tuple(map(str, end.get("last_lines", ()))),
            stacks=tuple(str(end.get("stacks", "")).splitlines()),
            post_mortem=str(end.get("post_mortem", "")),
        ),
        _successor(record, now),
    )
    return _fields([finding], duration, [_history(now or record)], _EXITED, "ended")


_COMMAND: Final = ("its code: a command has no agent",)
_NOT_CONNECTED: Final = ("its Python code: its agent is not connected",)
_WITHOUT_PROCESS: Final = ("its process: it has none",)
_EXITED: Final = ("everything else: the process has exited",)


def _successor(record: WorkerRecord, now: WorkerRecord | None) -> str:
    if now is None:
        return f"{record.name} no longer exists."
    if now.process_id == record.process_id:  # its exit has not been reported yet
        return "Its restart policy decides what happens next."
    if now.process_id is None:
        return f"{record.name} is {now.state}."
    return f"pid {now.process_id} replaces it ({now.state})."


def _describe_samples(first: ProcessSample, last: ProcessSample) -> list[str]:
    main, *others = last.threads
    passed = max(1e-9, last.at - first.at)
    used = max(0.0, last.processor - first.processor) / passed
    grown = (last.resident - first.resident) / 2**20
    lines = [f"process: {main}; threads: {len(last.threads)}"]
    lines += [f"  thread {thread.number}: {thread}" for thread in others[:_SHOWN]]
    lines.append(f"CPU: {used:.0%} of one")
    lines.append(f"memory: {size(last.resident)} resident, {grown:+.1f} MiB")
    if last.descriptors is not None:
        change = last.descriptors - (first.descriptors or last.descriptors)
        limit = f", limit {last.limit}" if last.limit is not None else ""
        lines.append(f"descriptors: {last.descriptors} ({change:+d}){limit}")
    lines.append(f"children: {len(last.children)}")
    lines += [f"  {child}" for child in last.children[:_SHOWN]]
    return lines


def _history(record: WorkerRecord) -> str:
    words = [f"history: {record.restarts} restarts"]
    if record.started_at is not None and record.process_id is not None:
        words.append(f"up {time.monotonic() - record.started_at:.1f} s")
    if record.last_exit:
        words.append(f"last exit: {record.last_exit}")
    if record.status:
        words.append(f"status {record.status!r}")
    return ", ".join(words)


def _fields(
    findings: list[Finding],
    duration: float,
    looked_at: list[str],
    left_out: tuple[str, ...],
    way: str = "outside",
) -> Object:
    found = Diagnosis(
        data="",
        duration=duration,
        findings=tuple(findings),
        looked_at=tuple(looked_at),
        left_out=left_out,
        overhead=0.0,
        pause=0.0,
        facts={},
        way=way,
    )
    return {**to_fields(found), "data": describe(found)}
