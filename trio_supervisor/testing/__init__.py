"""Tools for tests of programs that use this package.

`run_worker` runs a service's target without a process, `simulated` runs a test in
virtual time, and `FakeProcess` stands for a child process. Every fake passes the same
tests as the real thing.
"""

from trio_supervisor.testing.fakes import FakeProcess
from trio_supervisor.testing.virtual_time import simulated, sleep_through
from trio_supervisor.testing.workers import (
    RunningWorker,
    run_sync_worker,
    run_worker,
)

__all__ = [
    "FakeProcess",
    "RunningWorker",
    "run_sync_worker",
    "run_worker",
    "simulated",
    "sleep_through",
]
