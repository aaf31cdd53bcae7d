"""All events of a controller: what is logged, shown, and given to *on_event*."""

from __future__ import annotations

import logging
from typing import Any, TypeAlias

from attrs import asdict

from trio_supervisor.controller.fleet_events import (
    CanaryFailed,
    CanaryPassed,
    CanaryStarted,
    GroupFailed,
    OverloadBegan,
    OverloadEnded,
    ReloadFailed,
    ReloadFinished,
    ReloadStarted,
    RunLeftOut,
    ServiceScaled,
    ShortageBegan,
    ShortageEnded,
    WorkerStillFailing,
)
from trio_supervisor.controller.own_events import (
    AllWorkersReady,
    CallDenied,
    ServingStarted,
    ShutdownFinished,
    ShutdownStarted,
    ShutdownTimedOut,
    SupervisorConnected,
    SupervisorLost,
    SupervisorResynchronized,
)
from trio_supervisor.controller.process_events import (
    CrashLoopEnded,
    ProcessExited,
    ProcessStarted,
    ProcessStopping,
    ProcessStuck,
    RestartLimitReached,
    SignalNotPermitted,
    StacksDumped,
    StartFailed,
    StraysStopped,
    WorkerReady,
    WorkerUnready,
)

# Everybody else imports events from here.
__all__ = [
    "AllWorkersReady",
    "CallDenied",
    "CanaryFailed",
    "CanaryPassed",
    "CanaryStarted",
    "CrashLoopEnded",
    "Event",
    "GroupFailed",
    "OverloadBegan",
    "OverloadEnded",
    "ProcessExited",
    "ProcessStarted",
    "ProcessStopping",
    "ProcessStuck",
    "ReloadFailed",
    "ReloadFinished",
    "ReloadStarted",
    "RestartLimitReached",
    "RunLeftOut",
    "ServiceScaled",
    "ServingStarted",
    "ShortageBegan",
    "ShortageEnded",
    "ShutdownFinished",
    "ShutdownStarted",
    "ShutdownTimedOut",
    "SignalNotPermitted",
    "StacksDumped",
    "StartFailed",
    "StraysStopped",
    "SupervisorConnected",
    "SupervisorLost",
    "SupervisorResynchronized",
    "WorkerReady",
    "WorkerStillFailing",
    "WorkerUnready",
    "event_fields",
    "log_event",
]

logger = logging.getLogger("trio_supervisor.controller")

Event: TypeAlias = (
    ProcessStarted
    | WorkerReady
    | CrashLoopEnded
    | WorkerUnready
    | StacksDumped
    | ShortageBegan
    | ShortageEnded
    | GroupFailed
    | ServiceScaled
    | RunLeftOut
    | ReloadStarted
    | ReloadFinished
    | CanaryStarted
    | CanaryPassed
    | CanaryFailed
    | WorkerStillFailing
    | ReloadFailed
    | ProcessStopping
    | ProcessExited
    | StartFailed
    | RestartLimitReached
    | ProcessStuck
    | SignalNotPermitted
    | StraysStopped
    | ShutdownTimedOut
    | ServingStarted
    | AllWorkersReady
    | SupervisorConnected
    | SupervisorLost
    | SupervisorResynchronized
    | OverloadBegan
    | CallDenied
    | OverloadEnded
    | ShutdownStarted
    | ShutdownFinished
)


def event_fields(event: Event) -> dict[str, Any]:
    """Return the fields of *event* as JSON values, with its kind as ``event``."""
    fields = asdict(event)
    for name, value in fields.items():
        if isinstance(value, tuple):
            fields[name] = list(value)  # JSON has no tuples
    return {"event": event.kind, **fields}


def log_event(event: Event) -> None:
    """Log *event*: the default of ``on_event``."""
    logger.log(event.level, "%s", event, extra={"event": event_fields(event)})
