"""What is served while it is measured: workers that do nothing but be there.

Without a limit on restarts and without delays between them: what is measured is how
long a replacement takes, not how long the default backoff would wait with it.
"""

from __future__ import annotations

import os

import trio

from trio_supervisor import Application, Service, Worker


async def work(worker: Worker) -> None:
    """Be ready, and wait."""
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
)
