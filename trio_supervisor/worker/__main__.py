"""``python -m trio_supervisor.worker``: how a controller starts a worker."""

from __future__ import annotations

from trio_supervisor.process.spawn.boot import WorkerBoot, read_boot
from trio_supervisor.worker.main import run_worker

if __name__ == "__main__":
    run_worker(*read_boot(WorkerBoot))
