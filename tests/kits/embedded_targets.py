"""Define functions that a child of an embedded controller can import."""

from __future__ import annotations

import sys

from trio_supervisor import Monitor, SyncWorker, Worker


async def work(worker: Worker) -> None:
    """Become ready and wait."""
    await worker.ready()
    await worker.status(f"incarnation {worker.incarnation}")
    await worker.stopping.wait()


def work_sync(worker: SyncWorker) -> None:
    """Become ready and wait, in a sync worker."""
    worker.ready()
    worker.stopping.wait()


def tell_references(worker: SyncWorker) -> None:
    """Show the reference count of a preloaded object as the status text."""
    worker.ready()
    worker.status(str(sys.getrefcount(CountingMonitor)))
    worker.stopping.wait()


def crash(worker: SyncWorker) -> None:
    """Exit immediately."""
    sys.exit(9)


class CountingMonitor(Monitor):
    """A monitor that counts its runs."""

    def __init__(self) -> None:
        super().__init__(interval=0.01)
        self.runs = 0

    async def run_once(self) -> None:
        """Count a run."""
        self.runs += 1

    def status(self) -> dict[str, object]:
        """Return the number of runs."""
        return {"runs": self.runs}
