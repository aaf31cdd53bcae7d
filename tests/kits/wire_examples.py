"""One object of every message type with each field set, and one with the defaults.

golden/*.jsonl holds what they look like on the wire.
"""

from __future__ import annotations

from typing import Any

import attrs

from trio_supervisor.wire import controller_messages as c
from trio_supervisor.wire import messages as m
from trio_supervisor.wire import reports as r
from trio_supervisor.wire import worker_messages as w
from trio_supervisor.wire import workers as info
from trio_supervisor.wire.protocol import MODULES, Operation

FRAME = r.Frame(
    file="jobs.py",
    line=12,
    function="Queue.pop",
    source="time.sleep(9)",
    locals={"seconds": "9"},
)
THREAD = r.ThreadStack(
    name="MainThread",
    ident=140_737_353_922_432,
    is_daemon=False,
    is_main=True,
    frames=(r.Frame(file="main.py", line=1, function="<module>"), FRAME),
)
SPAN = c.CallSpan(
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    span_id="00f067aa0ba902b7",
    parent_id="b7ad6b7169203331",
    method="forward",
    start=1795790100000000000,
    end=1795790100250000000,
    caller=4711,
    names=("web.0",),
    operation="thread_dump",
    error_class="NoSuchWorker",
    problem="no worker has the name 'web.0'",
    is_cancelled=True,
)
PLAIN_SPAN = c.CallSpan(
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    span_id="00f067aa0ba902b7",
    method="ping",
    start=1,
    end=2,
)
SCHEDULE = info.ScheduleStatus(
    when="every 60 s",
    next_run_at=1795790160.0,
    last_run_at=1795790100.5,
    last_run_seconds=1.25,
    last_result="exit code 0",
)
CANARY = info.CanaryStatus(since=1795790100.5, until=1795790160.5)
RECORD = info.WorkerRecord(
    name="web.0",
    service="web",
    state="ready",
    process_id=4711,
    incarnation=3,
    restarts=2,
    started_at=1024.5,
    ready_at=1025.25,
    status="serving on :8080",
    last_exit="killed by SIGSEGV",
    connects=False,
    generation=2,
    waiting_for="db (ready)",
    reason="restart: leaks",
    needs=("db (ready)", "migrate (exited_ok)"),
    is_stable=False,
    crashes=4,
    next_try_at=1026.5,
    last_line="boom",
    problem="port 80 is held by nginx, pid 7",
    counts=False,
    may=("status", "restart"),
    schedule=SCHEDULE,
    canary=CANARY,
)
WORKER = info.WorkerStatus(
    name="web.0",
    service="web",
    process_id=4711,
    state="ready",
    connected=True,
    connection_id="7f0e6a52",
    incarnation=3,
    restarts=2,
    uptime=12.5,
    ready_for=11.75,
    status="café",
    last_exit="killed by SIGSEGV",
    is_managed=False,
    generation=2,
    waiting_for="db (ready)",
    reason="restart: leaks",
    needs=("db (ready)", "migrate (exited_ok)"),
    crashes=4,
    next_try_in=2.5,
    last_line="boom",
    problem="port 80 is held by nginx, pid 7",
    schedule=SCHEDULE,
    canary=CANARY,
    connects=False,
)
GONE = info.Gone(name="web.0", generation=1)
CONNECTION = m.ConnectionStatus(
    connection_id="7f0e6a52",
    process_id=4711,
    state={"process_id": 4711, "name": "web.0"},
)
SUPERVISOR = m.SupervisorStatus(process_id=4710, incarnation=1, uptime=99.0)
CONTROLLER = m.ControllerStatus(process_id=4709, version="0.1.0")

CALLS: tuple[Operation, ...] = (
    m.Ping(),
    m.Register(state={"process_id": 4711, "name": "web.0", "tags": ["a", {"b": None}]}),
    m.Status(),
    m.Workers(wait_ready=True),
    m.Workers(),
    m.Forward(
        operation={"do": "memory_sample", "duration": 10},
        connection_id="7f0e6a52",
        name="web.0",
        timeout=15.5,
    ),
    m.Forward(operation={"do": "thread_dump"}),
    c.Restart(
        names=("web.0", "jobs"),
        signal="HUP",
        reason="leaks",
        incarnation=3,
        generation=2,
        rolling=True,
        max_unavailable=2,
    ),
    c.Restart(),
    c.Reload(changed_only=True, dry_run=True, canary=1, canary_for=5.5),
    c.Reload(),
    c.AbortReload(),
    c.Scale(counts={"web": 8, "jobs": 0}),
    c.Health(kind="readiness"),
    c.ReadMetrics(per_worker=True, openmetrics=True),
    c.ReadMetrics(),
    c.Events(follow=True),
    c.Events(),
    c.Logs(names=("web.0", "jobs"), tail=0, follow=True),
    c.Logs(),
    c.Stop(names=("web.0", "jobs")),
    c.Start(names=("jobs",)),
    c.Shutdown(),
    c.Shutdown(wait=True),
    m.Cancel(call=8),
    m.Update(
        workers=(RECORD,),
        gone=(GONE,),
        restarts=1,
        is_last=True,
        sequence=7,
        is_snapshot=True,
        is_partial=True,
        digest="1-00000000deadbeef",
    ),
    m.Update(workers=()),
    m.Decide(
        hook="worker_exited",
        worker={"name": "web.0", "service": "web", "process_id": 4711},
        problem="not ready",
        exit={"returncode": 3, "decision": "restart"},
    ),
    m.Decide(hook="worker_started", worker={}),
    w.ThreadDump(locals=True),
    w.ThreadDump(),
    c.Inspect(name="web.0", process_id=4711),
    c.ReportDenial(
        name="web.0", process_id=4711, operation="stop", needed="stop", count=2
    ),
    c.ReportDenial(
        name="pid-4711", process_id=4711, operation="status", needed="status"
    ),
    c.ReportSpans(spans=(SPAN,), dropped=3),
    c.ReportSpans(spans=(PLAIN_SPAN,)),
    w.SchedulerDump(),
    w.LockDump(),
    w.DescriptorDump(),
    w.SlowTasks(),
    w.LoadedCode(),
    w.MemorySample(duration=60.5, engine="memray"),
    w.MemorySample(),
    w.AllocationTraceStart(),
    w.AllocationTraceStop(),
    w.MemoryDump(path="/srv/heap.jsonl", values=True),
    w.MemoryDump(),
    w.GarbageProfile(duration=60.5),
    w.GarbageProfile(),
    w.GarbageProfileStart(),
    w.GarbageProfileStop(),
    w.Profile(duration=60.5, interval=0.5, format="svg"),
    w.Profile(),
    w.Doctor(duration=60.5),
    w.Doctor(),
    w.ListOperations(),
)

RESULTS: tuple[attrs.AttrsInstance, ...] = (
    m.RegisterReport(connection_id="7f0e6a52"),
    CONNECTION,
    RECORD,
    info.WorkerRecord(
        name="jobs.0",
        service="jobs",
        state="backoff",
        process_id=None,
        incarnation=0,
        restarts=0,
        started_at=None,
    ),
    SCHEDULE,
    CANARY,
    info.ScheduleStatus(when="0 3 * * * (UTC)"),
    WORKER,
    info.WorkerStatus(
        name="4712",
        service=None,
        process_id=None,
        state="stopped",
        connected=False,
        connection_id=None,
        incarnation=0,
        restarts=0,
        uptime=None,
    ),
    SUPERVISOR,
    CONTROLLER,
    m.ControllerStatus(process_id=4709),
    m.ControllerStatus(process_id=4709, state="stopped", silent_for=12.5),
    m.UpdateReport(is_same=False, workers=3),
    m.UpdateReport(is_same=True),
    m.DecideReport(decision="leave"),
    m.DecideReport(),
    m.StatusReport(
        supervisor=SUPERVISOR,
        controller=CONTROLLER,
        workers=(WORKER,),
        connections=(CONNECTION,),
    ),
    m.StatusReport(supervisor=SUPERVISOR, controller=CONTROLLER),
    m.StatusReport(connections=(CONNECTION,)),
    GONE,
    SPAN,
    PLAIN_SPAN,
    c.ReloadReport(
        generation=2,
        lines=("~ web: count 4 -> 8",),
        services=(
            {
                "name": "web",
                "action": "change",
                "old_count": 4,
                "count": 8,
                "changes": [{"field": "count", "old": "4", "new": "8"}],
                "is_replaced": True,
                "overlap": True,
                "is_scaled": False,
            },
        ),
        not_ready={"web.1": "in backoff (exit code 1)"},
        canaries=("web.3",),
    ),
    c.ReloadReport(generation=1, lines=()),
    c.HealthReport(is_ok=False, details={"not_ready": ["web"], "stopping": False}),
    c.HealthReport(is_ok=True),
    c.MetricsReport(data="active 1\n"),
    FRAME,
    r.Frame(file="main.py", line=1, function="<module>"),
    THREAD,
    r.ThreadReport(data="MainThread\n  jobs.py:12", threads=(THREAD,)),
    r.ThreadReport(data=""),
)

THREADS = (r.Frame, r.ThreadStack, r.ThreadReport)
TYPES: tuple[type[attrs.AttrsInstance], ...] = tuple(
    value
    for module in (*MODULES, info, r)
    for value in vars(module).values()
    if value in THREADS
    or (getattr(value, "__module__", "") == module.__name__ != r.__name__)
    if isinstance(value, type) and attrs.has(value) and value is not info.WorkerInfo
)
"""Every message type of protocol 1, in one order whoever runs the tests.

What a worker says of itself but for its threads has tests beside what looks at it.
"""


def default_of(field: attrs.Attribute[Any]) -> Any:
    """Return the default of *field*, also if a factory makes it."""
    default: Any = field.default
    return getattr(default, "factory", lambda: default)()
