"""Serve the peers' worker with trio_supervisor, measured in the same way.

Once with the default backoff and once without: workers are killed in turn, each after
about 5 s, less than `Backoff.stable_after`. Of the peers, gunicorn has no backoff.
"""

from __future__ import annotations

import os

import trio

from benchmarks.peer_worker import announce
from trio_supervisor import Application, Service, Worker


async def work(worker: Worker) -> None:
    """Report readiness to the supervisor and to the benchmark, and wait."""
    await worker.ready()
    announce(os.environ["BENCHMARKS_ANNOUNCE"])
    await trio.sleep_forever()


application = Application(
    name="peer", services=[Service("worker", work, count=4, intensity=None)]
)
without_backoff = Application(
    name="peer",
    services=[Service("worker", work, count=4, intensity=None, backoff=None)],
)
