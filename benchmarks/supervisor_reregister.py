"""kill -9 of the supervisor until all workers are registered with the next one."""

from __future__ import annotations

import trio

from benchmarks.clock import now
from benchmarks.floors import open_fork_client
from benchmarks.frame import Frame
from benchmarks.serving import Served, open_served
from trio_supervisor import open_client
from trio_supervisor.wire.messages import Workers

_FLOOR = "fork to first line"
_SETTLE = 1.2


async def run(frame: Frame) -> None:
    """Measure with 4, 50 and 100 workers."""
    counts = (4,) if frame.options.is_quick else (4, 50, 100)
    with open_fork_client() as forker:
        for count in counts:
            async with open_served(count) as served:
                await served.wait_all_ready()

                async def kill(served: Served = served) -> float:
                    await served.settle()
                    # An agent whose connection lasted less backs off before the next.
                    await trio.sleep(_SETTLE)
                    return await _kill(served)

                await frame.measure(
                    f"supervisor killed, {count} workers registered",
                    kill,
                    floor=(_FLOOR, forker.probe("fork")),
                )


async def _kill(served: Served) -> float:
    """Kill it, and ask the next one, from the backlog, to say when all are there."""
    since = served.mark()
    began = now()
    served.kill("supervisor")
    # Not before the old one is gone: it would take the connection with it.
    await served.wait_event(
        lambda event: (
            event.get("event") in ("exited", "started")
            and event["name"] == "supervisor"
        ),
        since,
    )
    async with open_client(served.socket) as client:
        await client.call(Workers(wait_ready=True))
    return now() - began
