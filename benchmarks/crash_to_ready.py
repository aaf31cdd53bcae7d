"""Time from kill -9 of a worker until the log says that its replacement is ready."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Final

import trio
from attrs import define, field

from benchmarks.clock import now
from benchmarks.floors import ForkClient, open_fork_client
from benchmarks.frame import Frame
from benchmarks.serving import Served, open_served

_FLOOR = "kill noticed + fork to first line"


# The log summarises repeated crashes of a worker; up to this number it shows each one.
_KILLS_EACH: Final = 4


async def run(frame: Frame) -> None:
    """Measure with 4 and with 100 workers."""
    with open_fork_client() as forker:
        for count in (4, frame.options.count(100, quick=6)):
            async with AsyncExitStack() as stack:
                await _measure(frame, forker, _Victims(count, stack))


@define(eq=False)
class _Victims:
    """Workers to kill; `serve` is started again before one was killed too often."""

    count: int
    _stack: AsyncExitStack
    served: Served = field(init=False)
    _names: list[str] = field(factory=list, init=False)

    async def next(self) -> str:
        """Return a worker of `served` once all workers are ready."""
        if not self._names:
            await self._stack.aclose()
            self.served = await self._stack.enter_async_context(open_served(self.count))
            await self.served.wait_all_ready()
            self._names = self.served.workers * (_KILLS_EACH // 2)
        await self.served.settle()
        await trio.sleep(0.05)
        return self._names.pop()


async def _measure(frame: Frame, forker: ForkClient, victims: _Victims) -> None:
    name = f"crash to ready, {victims.count} workers"
    again = f"{name}, again at once"
    # The second kill of a pair hits the process that has just become ready.
    victim = ""

    async def first() -> float:
        nonlocal victim
        victim = await victims.next()
        return await _kill(victims.served, victim)

    async def second() -> float:
        return await _kill(victims.served, victim)

    series = {_FLOOR: forker.probe("crash"), name: first, again: second}
    taken = await frame.take(series)
    frame.add(name, taken, floor=_FLOOR)
    frame.add(again, taken, floor=_FLOOR)


async def _kill(served: Served, name: str) -> float:
    since = served.mark()
    began = now()
    served.kill(name)
    return await served.wait_ready(name, since) - began
