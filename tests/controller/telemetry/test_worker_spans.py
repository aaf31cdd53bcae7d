"""Test the spans that events make, one event after another."""

from __future__ import annotations

from itertools import count
from typing import Any

from trio_supervisor.controller.events import (
    Event,
    ProcessExited,
    ProcessStarted,
    ProcessStopping,
    ReloadFailed,
    ReloadFinished,
    ReloadStarted,
    ShutdownFinished,
    ShutdownStarted,
    StartFailed,
    WorkerReady,
    WorkerUnready,
)
from trio_supervisor.controller.telemetry.spans import FinishedSpan, SpanId
from trio_supervisor.controller.telemetry.worker_spans import WorkerSpans
from trio_supervisor.policy.trace_sampling import TraceSampling
from trio_supervisor.wire.trace_context import TraceContext

CALLER = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True)


class Events:
    """Events one second apart, and the spans that they make."""

    def __init__(self, sampling: TraceSampling | None = None) -> None:
        ids = count(1)
        self._source = WorkerSpans(
            sampling or TraceSampling(), lambda size: f"{next(ids):0{2 * size}x}"
        )
        self._now = 0

    def __call__(
        self, event: Event, caller: TraceContext | None = None
    ) -> list[FinishedSpan]:
        self._now += 1
        return list(self._source.on_event(event, self._now, caller))


def started(process_id: int, name: str = "web.0", incarnation: int = 1) -> Event:
    return ProcessStarted(name=name, process_id=process_id, incarnation=incarnation)


def ready(process_id: int) -> Event:
    return WorkerReady(name="web.0", process_id=process_id, seconds=1)


def exited(process_id: int, **fields: Any) -> Event:
    known: dict[str, Any] = {
        "name": "web.0",
        "returncode": 0,
        "is_planned": True,
        "is_failure": False,
        "next_step": "restarting",
    }
    return ProcessExited(process_id=process_id, **(known | fields))


def test_life_of_a_worker() -> None:
    events = Events()
    assert events(started(7)) == []
    [start] = events(ready(7))
    assert (start.name, start.start, start.end) == ("start web", 1, 2)
    unready = WorkerUnready(name="web.0", process_id=7, reason="no database")
    assert events(unready) == []
    assert events(ready(7)) == []
    stopping = ProcessStopping(name="web.0", process_id=7, cause="stop", reason="why")
    assert events(stopping) == []
    [life] = events(exited(7))
    assert (life.name, life.start, life.end, life.error) == ("worker web", 1, 6, None)
    assert start.parent == life.id
    assert (life.parent, life.previous) == (None, None)
    assert dict(life.attributes) == {
        "trio_supervisor.service": "web",
        "trio_supervisor.worker": "web.0",
        "process.pid": 7,
        "trio_supervisor.incarnation": 1,
        "trio_supervisor.generation": 1,
        "trio_supervisor.exit.reason": "planned",
        "trio_supervisor.next_step": "restarting",
        "process.exit.code": 0,
    }
    assert [(each.name, each.time, dict(each.attributes)) for each in life.moments] == [
        ("started", 1, {}),
        ("ready", 2, {}),
        ("unready", 3, {"trio_supervisor.reason": "no database"}),
        ("ready", 4, {}),
        (
            "stopping",
            5,
            {"trio_supervisor.cause": "stop", "trio_supervisor.reason": "why"},
        ),
        ("exited", 6, {}),
    ]


def test_crash_is_an_error_and_the_next_process_links_to_it() -> None:
    events = Events()
    events(started(7))
    crash = {"is_planned": False, "is_failure": True, "returncode": -9}
    [first] = events(exited(7, **crash, kill_reason="sent from outside"))
    assert first.error == "killed by SIGKILL (sent from outside, pid 7); restarting"
    assert first.attributes["trio_supervisor.exit.reason"] == "killed"
    problem = StartFailed(name="web.0", problem="no such file", next_step="retrying")
    [failed] = events(problem)
    assert failed.previous == first.id
    assert failed.start == failed.end
    assert "no such file" in str(failed.error)
    events(started(9, incarnation=3))
    [third] = events(exited(9))
    assert third.previous == failed.id
    assert len({first.id.trace, failed.id.trace, third.id.trace}) == 3


def test_two_processes_of_one_name_during_a_reload() -> None:
    events = Events()
    events(started(7))
    events(started(8))
    [new] = events(exited(8))
    [old] = events(exited(7))
    assert new.previous == old.id
    assert (old.attributes["process.pid"], new.attributes["process.pid"]) == (7, 8)


def test_reload_and_shutdown_are_part_of_the_call() -> None:
    events = Events()
    begun = ReloadStarted(name="controller", generation=2, plan=("= web", "+ db"))
    events(begun, CALLER)
    finished = ReloadFinished(name="controller", generation=2, seconds=1)
    [reload] = events(finished, CALLER)
    assert (reload.name, reload.id.trace) == ("reload", CALLER.trace_id)
    assert reload.parent == SpanId(trace=CALLER.trace_id, span=CALLER.span_id)
    assert reload.attributes["trio_supervisor.plan"] == "= web; + db"

    [failed] = events(ReloadFailed(name="controller", generation=3, problem="typo"))
    assert (failed.error, failed.start, failed.end) == ("typo", 3, 3)

    events(ShutdownStarted(name="controller", reason="received SIGTERM"))
    [shutdown] = events(ShutdownFinished(name="controller", seconds=1))
    assert (shutdown.name, shutdown.parent) == ("shutdown", None)
    assert shutdown.attributes["trio_supervisor.reason"] == "received SIGTERM"


def test_what_is_not_sampled_is_left_out() -> None:
    events = Events(TraceSampling(0.0))
    events(started(7))
    assert events(ready(7)) == []
    assert events(exited(7)) == []
    begun = ReloadStarted(name="controller", generation=2, plan=())
    finished = ReloadFinished(name="controller", generation=2, seconds=1)
    events(begun)
    assert events(finished) == []
    events(begun, CALLER)
    assert [span.name for span in events(finished, CALLER)] == ["reload"]


def test_worker_that_is_unready_again_and_again_has_bounded_moments() -> None:
    events = Events()
    events(started(7))
    for _ in range(200):
        events(WorkerUnready(name="web.0", process_id=7, reason=""))
        events(ready(7))
    [life] = events(exited(7))
    assert len(life.moments) == 100
