"""Time from kill -9 of the supervisor until all workers are registered again."""

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
                    # An agent backs off if its last connection was shorter than this.
                    await trio.sleep(_SETTLE)
                    return await _kill(served)

                await frame.measure(
                    f"supervisor killed, {count} workers registered",
                    kill,
                    floor=(_FLOOR, forker.probe("fork")),
                )


async def _kill(served: Served) -> float:
    """Kill the supervisor; wait at the next one until all workers are registered."""
    since = served.mark()
    began = now()
    served.kill("supervisor")
    # Connect only after the old one has exited: it would close the connection.
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
