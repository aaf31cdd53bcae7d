"""Define the measured workload: workers that do nothing.

They have no restart limit and no backoff: the benchmark measures how long a replacement
takes, not how long the default backoff would delay it.
"""

from __future__ import annotations

import os

import trio

from trio_supervisor import Application, Service, Worker


async def work(worker: Worker) -> None:
    """Report readiness and wait."""
    await worker.ready()
    await trio.sleep_forever()


application = Application(
    name="benchmark",
    services=[
        Service(
            "worker",
            work,
            count=int(os.environ.get("BENCHMARKS_COUNT", "4")),
            intensity=None,
            backoff=None,
            startup_timeout=None,
        )
    ],
    immortal_preload="BENCHMARKS_IMMORTAL" in os.environ,
)
