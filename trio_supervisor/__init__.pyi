# Generated from EXPORTS in __init__.py by `python -m trio_supervisor.reference docs`.

from collections.abc import Mapping

from trio_supervisor._version import __version__ as __version__
from trio_supervisor.application import Application as Application
from trio_supervisor.application import Autoscale as Autoscale
from trio_supervisor.application import Command as Command
from trio_supervisor.application import Exec as Exec
from trio_supervisor.application import Group as Group
from trio_supervisor.application import Listen as Listen
from trio_supervisor.application import Policy as Policy
from trio_supervisor.application import PolicyWorker as PolicyWorker
from trio_supervisor.application import Probe as Probe
from trio_supervisor.application import Schedule as Schedule
from trio_supervisor.application import Service as Service
from trio_supervisor.application import Timetable as Timetable
from trio_supervisor.application import Webhook as Webhook
from trio_supervisor.application import WorkerExit as WorkerExit
from trio_supervisor.controller.controller import Controller as Controller
from trio_supervisor.controller.open_controller import (
    open_controller as open_controller,
)
from trio_supervisor.errors import AlreadyServingError as AlreadyServingError
from trio_supervisor.errors import BadRequestError as BadRequestError
from trio_supervisor.errors import BusyError as BusyError
from trio_supervisor.errors import CallFailedError as CallFailedError
from trio_supervisor.errors import ConnectionLostError as ConnectionLostError
from trio_supervisor.errors import DeadlineExceededError as DeadlineExceededError
from trio_supervisor.errors import ExhaustedError as ExhaustedError
from trio_supervisor.errors import HeapFileError as HeapFileError
from trio_supervisor.errors import LimitExceededError as LimitExceededError
from trio_supervisor.errors import ListenError as ListenError
from trio_supervisor.errors import LocalProtocolError as LocalProtocolError
from trio_supervisor.errors import LowMemoryError as LowMemoryError
from trio_supervisor.errors import NoSuchWorkerError as NoSuchWorkerError
from trio_supervisor.errors import NoSupervisorError as NoSupervisorError
from trio_supervisor.errors import NotConnectedError as NotConnectedError
from trio_supervisor.errors import NotPermittedError as NotPermittedError
from trio_supervisor.errors import OperationFailedError as OperationFailedError
from trio_supervisor.errors import PlatformError as PlatformError
from trio_supervisor.errors import ProtocolError as ProtocolError
from trio_supervisor.errors import ReloadError as ReloadError
from trio_supervisor.errors import RemoteProtocolError as RemoteProtocolError
from trio_supervisor.errors import RestartLimitError as RestartLimitError
from trio_supervisor.errors import SignalNotPermittedError as SignalNotPermittedError
from trio_supervisor.errors import SignificantServiceError as SignificantServiceError
from trio_supervisor.errors import SnapshotError as SnapshotError
from trio_supervisor.errors import SocketPathError as SocketPathError
from trio_supervisor.errors import SpecError as SpecError
from trio_supervisor.errors import SupervisorError as SupervisorError
from trio_supervisor.errors import TargetError as TargetError
from trio_supervisor.errors import UnavailableError as UnavailableError
from trio_supervisor.errors import UnknownOperationError as UnknownOperationError
from trio_supervisor.link.client import Client as Client
from trio_supervisor.link.client import open_client as open_client
from trio_supervisor.link.entries import Entries as Entries
from trio_supervisor.link.foreign_server import ForeignServerError as ForeignServerError
from trio_supervisor.policy.metrics import Counter as Counter
from trio_supervisor.policy.metrics import Gauge as Gauge
from trio_supervisor.policy.metrics import Histogram as Histogram
from trio_supervisor.policy.metrics import Metrics as Metrics
from trio_supervisor.policy.reload import ReloadPlan as ReloadPlan
from trio_supervisor.policy.restart import Backoff as Backoff
from trio_supervisor.policy.restart import RestartPolicy as RestartPolicy
from trio_supervisor.process.spawn.load import load_application as load_application
from trio_supervisor.supervisor.monitors.base import Monitor as Monitor
from trio_supervisor.supervisor.monitors.base import MonitoredWorker as MonitoredWorker
from trio_supervisor.supervisor.monitors.descriptors import (
    DescriptorMonitor as DescriptorMonitor,
)
from trio_supervisor.supervisor.monitors.host import HostMonitor as HostMonitor
from trio_supervisor.supervisor.monitors.memory import MemoryMonitor as MemoryMonitor
from trio_supervisor.supervisor.monitors.process import ProcessMonitor as ProcessMonitor
from trio_supervisor.wire.controller_messages import HealthReport as HealthReport
from trio_supervisor.wire.controller_messages import ReloadReport as ReloadReport
from trio_supervisor.wire.messages import StatusReport as StatusReport
from trio_supervisor.wire.reports import ThreadReport as ThreadReport
from trio_supervisor.wire.workers import WorkerRecord as WorkerRecord
from trio_supervisor.wire.workers import WorkerStatus as WorkerStatus
from trio_supervisor.worker.instance import Stopping as Stopping
from trio_supervisor.worker.instance import SyncStopping as SyncStopping
from trio_supervisor.worker.instance import SyncWorker as SyncWorker
from trio_supervisor.worker.instance import Worker as Worker
from trio_supervisor.worker.standalone import SupervisedWorker as SupervisedWorker
from trio_supervisor.worker.standalone import supervised_worker as supervised_worker

EXPORTS: Mapping[str, tuple[str, ...]]
__all__ = [
    "AlreadyServingError",
    "Application",
    "Autoscale",
    "Backoff",
    "BadRequestError",
    "BusyError",
    "CallFailedError",
    "Client",
    "Command",
    "ConnectionLostError",
    "Controller",
    "Counter",
    "DeadlineExceededError",
    "DescriptorMonitor",
    "Entries",
    "Exec",
    "ExhaustedError",
    "ForeignServerError",
    "Gauge",
    "Group",
    "HealthReport",
    "HeapFileError",
    "Histogram",
    "HostMonitor",
    "LimitExceededError",
    "Listen",
    "ListenError",
    "LocalProtocolError",
    "LowMemoryError",
    "MemoryMonitor",
    "Metrics",
    "Monitor",
    "MonitoredWorker",
    "NoSuchWorkerError",
    "NoSupervisorError",
    "NotConnectedError",
    "NotPermittedError",
    "OperationFailedError",
    "PlatformError",
    "Policy",
    "PolicyWorker",
    "Probe",
    "ProcessMonitor",
    "ProtocolError",
    "ReloadError",
    "ReloadPlan",
    "ReloadReport",
    "RemoteProtocolError",
    "RestartLimitError",
    "RestartPolicy",
    "Schedule",
    "Service",
    "SignalNotPermittedError",
    "SignificantServiceError",
    "SnapshotError",
    "SocketPathError",
    "SpecError",
    "StatusReport",
    "Stopping",
    "SupervisedWorker",
    "SupervisorError",
    "SyncStopping",
    "SyncWorker",
    "TargetError",
    "ThreadReport",
    "Timetable",
    "UnavailableError",
    "UnknownOperationError",
    "Webhook",
    "Worker",
    "WorkerExit",
    "WorkerRecord",
    "WorkerStatus",
    "__version__",
    "load_application",
    "open_client",
    "open_controller",
    "supervised_worker",
]
