"""Run a worker by ``python -m trio_supervisor.worker``; the controller starts it."""

from __future__ import annotations

from trio_supervisor.process.spawn.boot import WorkerBoot, read_boot
from trio_supervisor.worker.main import run_worker

if __name__ == "__main__":
    run_worker(*read_boot(WorkerBoot))
