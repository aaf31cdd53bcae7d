"""A process supervisor for Python.

Public names are loaded when they are first used: a short command that only talks to a
supervisor does not import what a service file needs.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

from trio_supervisor._version import __version__ as __version__

# The one list of public names, by the module that defines them. Type checkers read the
# stub beside this file, which `python -m trio_supervisor.reference docs` writes.
EXPORTS: Final[Mapping[str, tuple[str, ...]]] = {
    "application": (
        *("Application", "Autoscale", "Command", "Exec", "Group", "Listen", "Probe"),
        *("Policy", "PolicyWorker", "Schedule", "Service", "Timetable", "Webhook"),
        "WorkerExit",
    ),
    "controller.controller": ("Controller",),
    "controller.open_controller": ("open_controller",),
    "errors": (
        "AlreadyServingError",
        "BadRequestError",
        "BusyError",
        "CallFailedError",
        "ConnectionLostError",
        "DeadlineExceededError",
        "ExhaustedError",
        "HeapFileError",
        "LimitExceededError",
        "ListenError",
        "LocalProtocolError",
        "LowMemoryError",
        "NoSuchWorkerError",
        "NoSupervisorError",
        "NotConnectedError",
        "NotPermittedError",
        "OperationFailedError",
        "PlatformError",
        "ProtocolError",
        "ReloadError",
        "RemoteProtocolError",
        "RestartLimitError",
        "SignalNotPermittedError",
        "SignificantServiceError",
        "SnapshotError",
        "SocketPathError",
        "SpecError",
        "SupervisorError",
        "TargetError",
        "UnavailableError",
        "UnknownOperationError",
    ),
    "link.client": ("Client", "open_client"),
    "link.entries": ("Entries",),
    "link.foreign_server": ("ForeignServerError",),
    "policy.metrics": ("Counter", "Gauge", "Histogram", "Metrics"),
    "policy.reload": ("ReloadPlan",),
    "policy.restart": ("Backoff", "RestartPolicy"),
    "process.spawn.load": ("load_application",),
    "supervisor.monitors.base": ("Monitor", "MonitoredWorker"),
    "supervisor.monitors.memory": ("MemoryMonitor",),
    "supervisor.monitors.descriptors": ("DescriptorMonitor",),
    "supervisor.monitors.host": ("HostMonitor",),
    "supervisor.monitors.process": ("ProcessMonitor",),
    "wire.controller_messages": ("HealthReport", "ReloadReport"),
    "wire.messages": ("StatusReport",),
    "wire.reports": ("ThreadReport",),
    "wire.workers": ("WorkerRecord", "WorkerStatus"),
    "worker.instance": ("Stopping", "SyncStopping", "SyncWorker", "Worker"),
    "worker.standalone": ("SupervisedWorker", "supervised_worker"),
}
_HOMES: Final = {name: home for home, names in EXPORTS.items() for name in names}

__all__ = sorted(["__version__", *_HOMES])


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
