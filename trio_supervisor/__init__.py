"""A process supervisor for Python.

What a service file needs is loaded when it is first used: a short command that only
talks to a supervisor pays for none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trio_supervisor._version import __version__

if TYPE_CHECKING:  # the one place: what loads lazily must still have types
    from trio_supervisor.application import (
        Application,
        Command,
        Group,
        Listen,
        Probe,
        Service,
    )
    from trio_supervisor.controller.controller import Controller
    from trio_supervisor.controller.open_controller import open_controller
    from trio_supervisor.errors import (
        AlreadyServingError,
        CallFailedError,
        ConnectionLostError,
        NoSuchWorkerError,
        NoSupervisorError,
        PlatformError,
        RestartLimitError,
        SocketPathError,
        SpecError,
        SupervisorError,
        TargetError,
        UnavailableError,
    )
    from trio_supervisor.link.client import Client, open_client
    from trio_supervisor.link.foreign_server import ForeignServerError
    from trio_supervisor.policy.restart import Backoff, RestartPolicy
    from trio_supervisor.process.spawn.load import load_application
    from trio_supervisor.supervisor.monitors.base import Monitor, MonitoredWorker
    from trio_supervisor.supervisor.monitors.memory import MemoryMonitor
    from trio_supervisor.worker.instance import (
        Stopping,
        SyncStopping,
        SyncWorker,
        Worker,
    )
    from trio_supervisor.worker.standalone import SupervisedWorker, supervised_worker

_HOMES = {
    "AlreadyServingError": "errors",
    "Application": "application",
    "Backoff": "policy.restart",
    "CallFailedError": "errors",
    "Client": "link.client",
    "Command": "application",
    "ConnectionLostError": "errors",
    "Controller": "controller.controller",
    "ForeignServerError": "link.foreign_server",
    "Group": "application",
    "Listen": "application",
    "MemoryMonitor": "supervisor.monitors.memory",
    "Monitor": "supervisor.monitors.base",
    "MonitoredWorker": "supervisor.monitors.base",
    "NoSuchWorkerError": "errors",
    "NoSupervisorError": "errors",
    "PlatformError": "errors",
    "Probe": "application",
    "RestartLimitError": "errors",
    "RestartPolicy": "policy.restart",
    "Service": "application",
    "SocketPathError": "errors",
    "SpecError": "errors",
    "Stopping": "worker.instance",
    "SupervisedWorker": "worker.standalone",
    "SupervisorError": "errors",
    "SyncStopping": "worker.instance",
    "SyncWorker": "worker.instance",
    "TargetError": "errors",
    "UnavailableError": "errors",
    "Worker": "worker.instance",
    "load_application": "process.spawn.load",
    "open_client": "link.client",
    "open_controller": "controller.open_controller",
    "supervised_worker": "worker.standalone",
}

__all__ = [
    "AlreadyServingError",
    "Application",
    "Backoff",
    "CallFailedError",
    "Client",
    "Command",
    "ConnectionLostError",
    "Controller",
    "ForeignServerError",
    "Group",
    "Listen",
    "MemoryMonitor",
    "Monitor",
    "MonitoredWorker",
    "NoSuchWorkerError",
    "NoSupervisorError",
    "PlatformError",
    "Probe",
    "RestartLimitError",
    "RestartPolicy",
    "Service",
    "SocketPathError",
    "SpecError",
    "Stopping",
    "SupervisedWorker",
    "SupervisorError",
    "SyncStopping",
    "SyncWorker",
    "TargetError",
    "UnavailableError",
    "Worker",
    "__version__",
    "load_application",
    "open_client",
    "open_controller",
    "supervised_worker",
]


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
