"""One object of every message type with each field set, and one with the defaults.

golden/*.jsonl holds what they look like on the wire.
"""

from __future__ import annotations

import attrs

from trio_supervisor.wire import messages as m
from trio_supervisor.wire.messages import OPERATIONS

FRAME = m.Frame(file="jobs.py", line=12, function="Queue.pop", source="time.sleep(9)")
THREAD = m.ThreadStack(
    name="MainThread",
    ident=140_737_353_922_432,
    is_daemon=False,
    is_main=True,
    frames=(m.Frame(file="main.py", line=1, function="<module>"), FRAME),
)
RECORD = m.WorkerRecord(
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
)
WORKER = m.WorkerStatus(
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
)
CONNECTION = m.Connection(
    connection_id="7f0e6a52",
    process_id=4711,
    state={"process_id": 4711, "name": "web.0"},
)
SUPERVISOR = m.SupervisorStatus(process_id=4710, incarnation=1, uptime=99.0)
CONTROLLER = m.ControllerStatus(process_id=4709, version="0.1.0")

CALLS: tuple[m.Operation, ...] = (
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
    m.Restart(names=("web.0", "jobs"), signal="HUP", reason="leaks", incarnation=3),
    m.Restart(),
    m.Stop(names=("web.0", "jobs")),
    m.Start(names=("jobs",)),
    m.Shutdown(),
    m.Cancel(call=8),
    m.Update(workers=(RECORD,), restarts=1),
    m.Update(workers=()),
    m.ThreadDump(),
)

RESULTS: tuple[attrs.AttrsInstance, ...] = (
    m.Registered(connection_id="7f0e6a52"),
    CONNECTION,
    RECORD,
    m.WorkerRecord(
        name="jobs.0",
        service="jobs",
        state="backoff",
        process_id=None,
        incarnation=0,
        restarts=0,
        started_at=None,
    ),
    WORKER,
    m.WorkerStatus(
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
    m.StatusReport(
        supervisor=SUPERVISOR,
        controller=CONTROLLER,
        workers=(WORKER,),
        connections=(CONNECTION,),
    ),
    m.StatusReport(supervisor=SUPERVISOR, controller=CONTROLLER),
    m.StatusReport(connections=(CONNECTION,)),
    FRAME,
    m.Frame(file="main.py", line=1, function="<module>"),
    THREAD,
    m.ThreadReport(data="MainThread\n  jobs.py:12", threads=(THREAD,)),
    m.ThreadReport(data=""),
)

TYPES: frozenset[type[attrs.AttrsInstance]] = frozenset(
    value
    for value in vars(m).values()
    if isinstance(value, type) and attrs.has(value) and value.__module__ == m.__name__
)
"""Every message type of protocol 1."""

OPERATION_TYPES = frozenset(OPERATIONS.values())
