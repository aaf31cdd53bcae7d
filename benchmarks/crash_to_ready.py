"""kill -9 of a worker until its replacement is ready, as the controller's log says."""

from __future__ import annotations

from itertools import cycle

import trio

from benchmarks.clock import now
from benchmarks.floors import Forker, open_forker
from benchmarks.frame import Frame
from benchmarks.serving import Served, open_served

_FLOOR = "kill noticed + fork to first line"


async def run(frame: Frame) -> None:
    """Measure with 4 and with 100 workers."""
    with open_forker() as forker:
        for count in (4, frame.options.count(100, quick=6)):
            async with open_served(count) as served:
                await served.wait_all_ready()
                await served.settle()
                await _measure(frame, forker, served, count)


async def _measure(frame: Frame, forker: Forker, served: Served, count: int) -> None:
    names = cycle(served.workers)
    name = f"crash to ready, {count} workers"
    again = f"{name}, again at once"
    # The second kill of a pair is of the process that has just become ready.
    victim = ""

    async def first() -> float:
        nonlocal victim
        victim = next(names)
        await served.settle()
        await trio.sleep(0.05)
        return await _kill(served, victim)

    async def second() -> float:
        return await _kill(served, victim)

    series = {_FLOOR: forker.probe("crash"), name: first, again: second}
    taken = await frame.take(series)
    frame.add(name, taken, floor=_FLOOR)
    frame.add(again, taken, floor=_FLOOR)


async def _kill(served: Served, name: str) -> float:
    since = served.mark()
    began = now()
    served.kill(name)
    return await served.wait_ready(name, since) - began
