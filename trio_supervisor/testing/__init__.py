"""Tools for tests of programs that use this package.

`run_worker` runs a service's target without a process, `simulated` a whole application
in virtual time, and `FakeProcess` stands for a child process. Every fake passes the
same tests as the real thing. `faults` and `SupervisorMachine` need hypothesis: install
``trio_supervisor[testing]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trio_supervisor.testing.chaos import Chaos
from trio_supervisor.testing.fakes import FakeProcess
from trio_supervisor.testing.fault_plan import (
    ClockSet,
    ConnectionFails,
    DiskFull,
    Exits,
    Fault,
    FaultPlan,
    Hangs,
    Killed,
    Reloaded,
    Restarted,
    StartsBadly,
    Stopped,
    SupervisorKilled,
    Suspended,
)
from trio_supervisor.testing.monitored_worker import FakeMonitoredWorker, run_monitor
from trio_supervisor.testing.simulated_process import SimulatedProcess, StartFault
from trio_supervisor.testing.simulation import Simulation, simulated
from trio_supervisor.testing.virtual_time import in_virtual_time, sleep_through
from trio_supervisor.testing.workers import (
    RunningWorker,
    run_sync_worker,
    run_worker,
)

if TYPE_CHECKING:
    from trio_supervisor.testing.machine import SupervisorMachine
    from trio_supervisor.testing.strategies import faults

__all__ = [
    "Chaos",
    "ClockSet",
    "ConnectionFails",
    "DiskFull",
    "Exits",
    "FakeMonitoredWorker",
    "FakeProcess",
    "Fault",
    "FaultPlan",
    "Hangs",
    "Killed",
    "Reloaded",
    "Restarted",
    "RunningWorker",
    "SimulatedProcess",
    "Simulation",
    "StartFault",
    "StartsBadly",
    "Stopped",
    "SupervisorKilled",
    "SupervisorMachine",
    "Suspended",
    "faults",
    "in_virtual_time",
    "run_monitor",
    "run_sync_worker",
    "run_worker",
    "simulated",
    "sleep_through",
]


def __getattr__(name: str) -> Any:
    """Load what needs hypothesis when it is first used."""
    if name == "faults":
        from trio_supervisor.testing.strategies import faults

        return faults
    if name == "SupervisorMachine":
        from trio_supervisor.testing.machine import SupervisorMachine

        return SupervisorMachine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
