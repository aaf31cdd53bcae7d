"""The peers' worker, served by trio_supervisor: the same announcement, the same clock.

With the default backoff, and without: workers are killed in turn, each after a run of
some 5 s, which is no long one (`Backoff.stable_after`). Of the peers gunicorn has none.
"""

from __future__ import annotations

import os

import trio

from benchmarks.peer_worker import announce
from trio_supervisor import Application, Service, Worker


async def work(worker: Worker) -> None:
    """Be ready, say so to the one that measures, and wait."""
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
