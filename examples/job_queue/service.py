"""A small job queue: a worker takes a job, works on it, and acknowledges it.

A job that is not acknowledged within `LEASE` seconds is given to another worker, so it
survives a crash of the first: `test_job_queue.py` shows it.

    python -m trio_supervisor serve examples/job_queue/service.py
"""

from __future__ import annotations

from collections import deque

import trio

from trio_supervisor import Application, Service, Worker

LEASE = 30.0


class Queue:
    """Jobs that wait, and jobs that a worker has taken."""

    def __init__(self) -> None:
        self.waiting = deque[str]()
        self.leased = dict[str, float]()
        self.done = set[str]()

    def put(self, job: str) -> None:
        """Accept a job: from now on it must not be lost."""
        self.waiting.append(job)

    def take(self) -> str | None:
        """Lend a job out; None: there is none."""
        now = trio.current_time()
        for job, until in list(self.leased.items()):
            if until <= now:
                del self.leased[job]
                self.waiting.append(job)
        if not self.waiting:
            return None
        job = self.waiting.popleft()
        self.leased[job] = now + LEASE
        return job

    def acknowledge(self, job: str) -> None:
        """Forget a job that is done."""
        self.leased.pop(job, None)
        self.done.add(job)


queue = Queue()


async def work(worker: Worker) -> None:
    """Do one job after the other."""
    await worker.ready()
    while not worker.stopping.is_set():
        job = queue.take()
        await trio.sleep(1)  # the work
        if job is not None:
            queue.acknowledge(job)


application = Application(services=[Service("work", work, count=2)])
