"""What a controller tells, in words and as fields: every event that there is."""

from __future__ import annotations

import json
import logging
from typing import Any, get_args

import pytest
from attrs import evolve

from trio_supervisor.controller import events
from trio_supervisor.controller.events import (
    AllWorkersReady,
    CallDenied,
    CanaryFailed,
    CanaryPassed,
    CanaryStarted,
    CrashLoopEnded,
    Event,
    GroupFailed,
    OverloadBegan,
    OverloadEnded,
    ProcessExited,
    ProcessStarted,
    ProcessStopping,
    ProcessStuck,
    ReloadFailed,
    ReloadFinished,
    ReloadStarted,
    RestartLimitReached,
    RunLeftOut,
    ServiceScaled,
    ServingStarted,
    ShortageBegan,
    ShortageEnded,
    ShutdownFinished,
    ShutdownStarted,
    ShutdownTimedOut,
    SignalNotPermitted,
    StacksDumped,
    StartFailed,
    StraysStopped,
    SupervisorConnected,
    SupervisorLost,
    SupervisorResynchronized,
    WorkerReady,
    WorkerStillFailing,
    WorkerUnready,
    event_fields,
    log_event,
)
from trio_supervisor.policy.restart import Cause
from trio_supervisor.process.logs import JsonFormatter

DEBUG, INFO = logging.DEBUG, logging.INFO
WARNING, ERROR = logging.WARNING, logging.ERROR


def exited(returncode: int, *, is_planned: bool = False) -> ProcessExited:
    return ProcessExited(
        name="web.0",
        process_id=7,
        returncode=returncode,
        is_planned=is_planned,
        is_failure=not is_planned and returncode != 0,
        next_step="restarting",
    )


def stopping(cause: Cause, reason: str = "") -> ProcessStopping:
    return ProcessStopping(name="web.0", process_id=7, cause=cause.value, reason=reason)


EVENTS: list[tuple[Event, int, str]] = [
    (
        ProcessStarted(name="web.0", process_id=7, incarnation=1),
        INFO,
        "started (pid 7)",
    ),
    (
        ProcessStarted(name="web.0", process_id=7, incarnation=3),
        INFO,
        "started (pid 7, incarnation 3)",
    ),
    (
        ProcessStarted(name="web.0", process_id=7, incarnation=1, generation=2),
        INFO,
        "started (pid 7, generation 2)",
    ),
    (
        ProcessStarted(name="web.0", process_id=7, incarnation=3, generation=2),
        INFO,
        "started (pid 7, incarnation 3, generation 2)",
    ),
    (
        WorkerReady(name="web.0", process_id=7, seconds=0.1434),
        INFO,
        "ready in 143 ms (pid 7)",
    ),
    (
        WorkerUnready(name="web.0", process_id=7, reason=""),
        WARNING,
        "no longer ready (pid 7)",
    ),
    (
        WorkerUnready(name="web.0", process_id=7, reason="the queue is full"),
        WARNING,
        "no longer ready (pid 7): the queue is full",
    ),
    (
        StacksDumped(
            name="web.0", process_id=7, cause="unhealthy", stacks="MainThread\n  a.py:1"
        ),
        WARNING,
        "stack dump before stopping (pid 7):\nMainThread\n  a.py:1",
    ),
    (
        GroupFailed(
            name="group",
            problem="restart limit of group core reached (intensity=3, period=60 s)",
            services=("db", "web"),
        ),
        ERROR,
        "restart limit of group core reached (intensity=3, period=60 s); restarting "
        "db, web",
    ),
    (
        RunLeftOut(name="tick.0", due=1.5, problem="it was missed"),
        WARNING,
        "scheduled run left out: it was missed",
    ),
    (ServiceScaled(name="web", before=4, count=8), INFO, "scaled from 4 to 8"),
    (
        ShortageBegan(name="controller", worker="web.0", problem="too many open files"),
        ERROR,
        "cannot start web.0: too many open files; not counted as a crash, retrying; "
        "running workers are not affected",
    ),
    (
        ShortageEnded(name="controller", failures=3, seconds=1.25),
        WARNING,
        "processes can be started again after 1.2 s (3 starts failed)",
    ),
    (
        ReloadStarted(
            name="controller", generation=2, plan=("~ web: a b -> c", "- old")
        ),
        INFO,
        "reloading, generation 2: ~ web: a b -> c; - old",
    ),
    (
        ReloadFinished(name="controller", generation=2, seconds=1.234),
        INFO,
        "reload finished: generation 2 took over after 1.23 s",
    ),
    (
        ReloadFailed(name="controller", generation=2, problem="new web.0 exited"),
        ERROR,
        "reload failed; generation 1 keeps running: new web.0 exited",
    ),
    (
        CanaryStarted(
            name="controller", generation=3, workers=("web.2", "jobs.0"), seconds=60.0
        ),
        INFO,
        "canary of generation 3 is ready: web.2, jobs.0; comparing with generation 2 "
        "for 60 s",
    ),
    (
        CanaryPassed(name="controller", generation=3, workers=("web.2",)),
        INFO,
        "canary of generation 3 passed: web.2; reload continues",
    ),
    (
        CanaryFailed(
            name="controller", generation=3, workers=("web.2",), problem="web.2 exited"
        ),
        ERROR,
        "canary of generation 3 failed; rolling back: web.2 exited",
    ),
    (
        WorkerStillFailing(name="web.0", problem="exit code 3"),
        WARNING,
        "still failing, as in the previous generation: exit code 3; reload continues",
    ),
    (stopping(Cause.STOP), INFO, "stopping (pid 7): stop requested"),
    (
        stopping(Cause.RESTART, "deploy"),
        INFO,
        "stopping (pid 7): restart requested: deploy",
    ),
    (
        stopping(Cause.STOP, "shutdown"),
        INFO,
        "stopping (pid 7): shutdown",
    ),
    (
        evolve(
            stopping(Cause.UNHEALTHY),
            problem="no heartbeat for 30 s",
            setting="health_check_timeout",
        ),
        INFO,
        "no heartbeat for 30 s (health_check_timeout, pid 7); stopping",
    ),
    (
        evolve(
            stopping(Cause.STARTUP_TIMEOUT),
            problem="not ready after 60 s",
            setting="startup_timeout",
        ),
        INFO,
        "not ready after 60 s (startup_timeout, pid 7); stopping",
    ),
    (exited(0), INFO, "exited with code 0 (pid 7); restarting"),
    (exited(3), WARNING, "exited with code 3 (pid 7); restarting"),
    (exited(-9), WARNING, "killed by SIGKILL (pid 7); restarting"),
    (
        evolve(exited(-9), kill_reason="out of memory: cgroup limit 512 MiB"),
        WARNING,
        "killed by SIGKILL (out of memory: cgroup limit 512 MiB, pid 7); restarting",
    ),
    (
        exited(-15, is_planned=True),
        INFO,
        "killed by SIGTERM (pid 7); restarting",
    ),
    (
        evolve(exited(3), crashes=4, last_line="b c"),
        WARNING,
        "exited with code 3 (pid 7), 4 times in a row; restarting; last line: b c",
    ),
    (
        evolve(exited(3), crashes=5, last_line="a"),
        WARNING,
        "exited with code 3 (pid 7), 5 times in a row; restarting; last line: a; "
        "crash loop: from now on logging only crashes 8, 16, 32, ...",
    ),
    (
        evolve(exited(3), crashes=1, problem="port 80 is in use by a.0 (pid 8)"),
        WARNING,
        "exited with code 3 (pid 7); restarting; port 80 is in use by a.0 (pid 8)",
    ),
    (
        evolve(exited(-6), last_line="double free"),
        WARNING,
        "killed by SIGABRT (pid 7); restarting; last line: double free",
    ),
    (
        evolve(exited(-9), last_line="GET /"),
        WARNING,
        "killed by SIGKILL (pid 7); restarting",
    ),
    (
        evolve(exited(3), crashes=6, is_repeat=True),
        DEBUG,
        "exited with code 3 (pid 7), 6 times in a row; restarting",
    ),
    (
        StartFailed(
            name="web.0",
            problem="no such file",
            next_step="retrying in 312 ms (backoff)",
            crashes=6,
            is_repeat=True,
        ),
        DEBUG,
        "failed to start: no such file, 6 times in a row; retrying in 312 ms (backoff)",
    ),
    (
        ProcessStarted(name="web.0", process_id=7, incarnation=6, is_repeat=True),
        DEBUG,
        "started (pid 7, incarnation 6)",
    ),
    (
        WorkerReady(name="web.0", process_id=7, seconds=0.1, is_repeat=True),
        DEBUG,
        "ready in 100 ms (pid 7)",
    ),
    (
        evolve(stopping(Cause.UNHEALTHY), is_repeat=True),
        DEBUG,
        "stopping (pid 7): health check timeout",
    ),
    (
        StacksDumped(
            name="web.0", process_id=7, cause="unhealthy", stacks="a", is_repeat=True
        ),
        DEBUG,
        "stack dump before stopping (pid 7):\na",
    ),
    (
        CrashLoopEnded(name="web.0", process_id=7, crashes=12, seconds=10.2),
        INFO,
        "ready for 10 s (stable_after, pid 7) after 12 crashes in a row; crash loop "
        "over",
    ),
    (
        StartFailed(
            name="web.0",
            problem="no such file",
            next_step='not restarting (restart="never")',
        ),
        ERROR,
        'failed to start: no such file; not restarting (restart="never")',
    ),
    (
        RestartLimitReached(name="web.0", problem="restart limit reached"),
        ERROR,
        "restart limit reached",
    ),
    (
        ProcessStuck(name="web.0", process_id=7, seconds=20.2),
        ERROR,
        "not stopped 20 s after the stop request, despite SIGKILL (pid 7); waiting",
    ),
    (
        ProcessStuck(
            name="web.0",
            process_id=7,
            seconds=20.2,
            remaining="pid 7 (cp) is in state D, in an uninterruptible wait",
        ),
        ERROR,
        "not stopped 20 s after the stop request, despite SIGKILL (pid 7); waiting "
        "(pid 7 (cp) is in state D, in an uninterruptible wait)",
    ),
    (
        SignalNotPermitted(
            name="web.0",
            process_id=7,
            problem="not permitted to signal pid 8 (user root)",
        ),
        ERROR,
        "not permitted to signal pid 8 (user root); it keeps running, no "
        "replacement is started",
    ),
    (
        StraysStopped(name="web.0", process_ids=(8, 9), commands=("sleep", "sh")),
        INFO,
        "stopped descendants outside its process group: pid 8 (sleep), pid 9 (sh)",
    ),
    (
        ShutdownTimedOut(name="controller", timeout=8.0, left=("web.0", "db.0")),
        WARNING,
        "shutdown not finished in time (stop_timeout=8 s of the application); killing "
        "web.0, db.0",
    ),
    (
        SupervisorLost(name="controller"),
        WARNING,
        "supervisor connection lost; workers keep running, restarting the supervisor",
    ),
    (
        SupervisorConnected(name="controller", is_back=False),
        INFO,
        "supervisor connected",
    ),
    (
        SupervisorConnected(name="controller", is_back=True),
        INFO,
        "supervisor reconnected",
    ),
    (
        SupervisorResynchronized(name="supervisor", workers=3, known=4),
        WARNING,
        "the supervisor's status table was out of date (4 workers instead of 3, or old "
        "values); sent again",
    ),
    (
        AllWorkersReady(name="controller", workers=3, seconds=0.2),
        INFO,
        "all 3 workers ready after 200 ms",
    ),
    (
        OverloadBegan(
            name="controller", late=80, watched=100, causes=("cpu pressure 98%",)
        ),
        WARNING,
        "machine overloaded: 80 of 100 workers are late (cpu pressure 98%); "
        "suspending startup_timeout and health_check_timeout",
    ),
    (
        CallDenied(
            name="web.0", process_id=7, operation="restart", needed="restart", count=4
        ),
        WARNING,
        "call of 'restart' denied (pid 7, 4 times): may does not include \"restart\"",
    ),
    (
        OverloadEnded(name="controller", late=2, watched=100),
        INFO,
        "machine no longer overloaded: 2 of 100 workers are late; "
        "startup_timeout and health_check_timeout apply again",
    ),
    (
        ShutdownStarted(name="controller", reason="received SIGTERM"),
        INFO,
        "received SIGTERM; shutting down",
    ),
    (
        ShutdownFinished(name="controller", seconds=1.5),
        INFO,
        "everything stopped after 1500 ms",
    ),
]
SERVING = ServingStarted(name="controller", process_id=1, socket="/run/supervisor.ipc")
every_event = pytest.mark.parametrize(
    "event", [*(event for event, _, _ in EVENTS), SERVING]
)


def test_no_event_is_forgotten_here() -> None:
    shown = {type(event) for event, _, _ in EVENTS} | {ServingStarted}
    assert shown == set(get_args(Event))


@pytest.mark.parametrize(("event", "level", "words"), EVENTS)
def test_an_event_in_words(event: Event, level: int, words: str) -> None:
    assert str(event) == words
    assert event.level == level


def test_a_start_names_the_socket() -> None:
    assert "/run/supervisor.ipc" in str(SERVING)
    assert SERVING.level == INFO


@every_event
def test_an_event_is_json(event: Event) -> None:
    """With its kind, its name, and all that it says."""
    fields = event_fields(event)
    assert json.loads(json.dumps(fields)) == fields
    assert fields["event"] == event.kind
    assert fields["name"] == event.name
    assert set(fields) == {"event", *type(event).__annotations__} - {"kind", "level"}


def test_no_two_events_are_of_one_kind() -> None:
    kinds = [type_.kind for type_ in get_args(Event)]
    assert len(set(kinds)) == len(kinds)


@every_event
def test_an_event_is_logged_with_its_fields(
    event: Event, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(DEBUG, events.logger.name):
        log_event(event)
    [record] = caplog.records
    assert record.levelno == event.level
    assert record.getMessage() == str(event)
    written: dict[str, Any] = json.loads(JsonFormatter("controller").format(record))
    assert event_fields(event).items() <= written.items()


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_words(cause: Cause) -> None:
    assert str(stopping(cause)).startswith("stopping (pid 7): ")
    assert "_" not in str(stopping(cause))
