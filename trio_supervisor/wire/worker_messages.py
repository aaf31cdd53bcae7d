"""Operations that the agent of a worker answers. Their results are the reports."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen
from attrs.validators import ge, gt, in_, le, matches_re, optional

from trio_supervisor.wire.operation import Operation, Side, operation

_duration: Any = [gt(0), le(3600)]
_path: Any = matches_re(r"[^\0]+")


@operation(
    "thread_dump",
    answered_by=Side.WORKER,
    result="reports.ThreadReport",
    has_report=True,
)
@frozen(kw_only=True)
class ThreadDump(Operation):
    """Return the stacks of all threads."""

    locals: bool = False
    """Include the values of local variables, truncated."""


@operation(
    "scheduler_dump",
    answered_by=Side.WORKER,
    result="reports.SchedulerReport",
    has_report=True,
)
@frozen(kw_only=True)
class SchedulerDump(Operation):
    """Return the tasks of the event loop."""


@operation(
    "lock_dump",
    answered_by=Side.WORKER,
    result="reports.LockReport",
    has_report=True,
)
@frozen(kw_only=True)
class LockDump(Operation):
    """Return which thread waits for which lock, its holder, and deadlocks."""


@operation(
    "descriptors",
    answered_by=Side.WORKER,
    result="reports.DescriptorReport",
    has_report=True,
)
@frozen(kw_only=True)
class DescriptorDump(Operation):
    """Return the open file descriptors by kind."""


@operation(
    "slow_tasks",
    answered_by=Side.WORKER,
    result="reports.StallReport",
    has_report=True,
)
@frozen(kw_only=True)
class SlowTasks(Operation):
    """Return when, and in which task, the event loop was blocked."""


@operation("loaded_code", answered_by=Side.WORKER, result="reports.LoadedReport")
@frozen(kw_only=True)
class LoadedCode(Operation):
    """Return the source files of the application that are loaded."""


@operation(
    "memory_sample",
    answered_by=Side.WORKER,
    result="memory_reports.MemoryReport",
    has_report=True,
)
@frozen(kw_only=True)
class MemorySample(Operation):
    """Return the objects that are allocated in a period and retained at its end."""

    duration: float = field(default=10.0, validator=_duration)
    """[s]"""
    engine: str = field(default="snapshots", validator=in_(("snapshots", "memray")))
    """``memray`` traces every allocation and answers with an `AllocationReport`."""


@operation("allocation_trace_start", answered_by=Side.WORKER)
@frozen(kw_only=True)
class AllocationTraceStart(Operation):
    """Start tracing every allocation with memray."""


@operation(
    "allocation_trace_stop",
    answered_by=Side.WORKER,
    result="allocations.AllocationReport",
    has_report=True,
)
@frozen(kw_only=True)
class AllocationTraceStop(Operation):
    """Stop tracing allocations."""


@operation(
    "memory_dump",
    answered_by=Side.WORKER,
    result="memory_reports.DumpReport",
)
@frozen(kw_only=True)
class MemoryDump(Operation):
    """Write the heap to a new file."""

    path: str | None = field(default=None, validator=optional(_path))
    """The file, which must not exist. None: a new file in the temporary directory."""
    values: bool = False
    """Include strings and numbers, truncated: they may contain secrets."""


@operation(
    "garbage_profile",
    answered_by=Side.WORKER,
    result="reports.GarbageReport",
    has_report=True,
)
@frozen(kw_only=True)
class GarbageProfile(Operation):
    """Measure garbage collections for a period."""

    duration: float = field(default=10.0, validator=_duration)
    """[s]"""


@operation("garbage_profile_start", answered_by=Side.WORKER)
@frozen(kw_only=True)
class GarbageProfileStart(Operation):
    """Start measuring garbage collections."""


@operation(
    "garbage_profile_stop",
    answered_by=Side.WORKER,
    result="reports.GarbageReport",
    has_report=True,
)
@frozen(kw_only=True)
class GarbageProfileStop(Operation):
    """Stop measuring garbage collections."""


@operation(
    "profile",
    answered_by=Side.WORKER,
    result="reports.ProfileReport",
    has_report=True,
)
@frozen(kw_only=True)
class Profile(Operation):
    """Sample the stacks of all threads and tasks for a period."""

    duration: float = field(default=10.0, validator=_duration)
    """[s]"""
    interval: float = field(default=0.01, validator=[ge(0.001), le(10)])
    """Time between two samples [s]."""
    format: str = "speedscope"
    """``speedscope`` or ``collapsed``."""


@operation(
    "doctor",
    answered_by=Side.WORKER,
    result="diagnosis.Diagnosis",
    has_report=True,
)
@frozen(kw_only=True)
class Doctor(Operation):
    """Diagnose leaks, blocked event loops and deadlocks for a period."""

    duration: float = field(default=5.0, validator=_duration)
    """[s]"""


@operation("operations", answered_by=Side.WORKER)
@frozen(kw_only=True)
class ListOperations(Operation):
    """Return ``operations``, the built-in ones, and ``handlers``, the service's own."""
