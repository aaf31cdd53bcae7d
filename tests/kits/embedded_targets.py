"""Functions that a child of an embedded controller can import."""

from __future__ import annotations

import sys

from trio_supervisor import Monitor, SyncWorker, Worker


async def work(worker: Worker) -> None:
    """Be ready, and look at nothing."""
    await worker.ready()
    await worker.status(f"incarnation {worker.incarnation}")
    await worker.stopping.wait()


def work_sync(worker: SyncWorker) -> None:
    """The same for a blocking worker."""
    worker.ready()
    worker.stopping.wait()


def crash(worker: SyncWorker) -> None:
    """End at once."""
    sys.exit(9)


class CountingMonitor(Monitor):
    """Says how often it ran."""

    def __init__(self) -> None:
        super().__init__(interval=0.01)
        self.runs = 0

    async def run_once(self) -> None:
        """Count."""
        self.runs += 1

    def status(self) -> dict[str, object]:
        """Say it."""
        return {"runs": self.runs}
