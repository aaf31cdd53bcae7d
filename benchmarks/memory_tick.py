"""Measure a run of the memory monitor over 1,000 processes, and how long it blocks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from benchmarks.clock import now
from benchmarks.floors import open_fork_client
from benchmarks.frame import Frame
from trio_supervisor import MemoryMonitor

_FLOOR = "reading /proc/PID/statm of each"
_LOOK = 1.0
"""Interval at which the event loop is sampled [ms]."""


@define(eq=False)
class StandIn:
    """A stand-in for a worker: see `trio_supervisor.MonitoredWorker`."""

    process_id: int
    name: str
    connection_id: str
    state: Mapping[str, Any] = field(factory=dict)
    is_ready: bool = True
    is_managed: bool = True
    uptime: float | None = 100.0

    async def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        raise NotImplementedError

    async def restart(self, reason: str) -> None:
        raise NotImplementedError


async def run(frame: Frame) -> None:
    """Measure with a limit for each process, and with a limit for their total."""
    count = frame.options.count(1000, quick=20)
    with open_fork_client() as forker:
        ids = forker.sleepers(count)
        limits: dict[str, dict[str, Any]] = {
            "": {"maximum_size_limit": 2**40},
            " (private memory, too)": {"total_size_limit": 2**50},
        }
        for label, arguments in limits.items():
            monitor = MemoryMonitor(**arguments)
            for number in ids:
                monitor.register(StandIn(number, f"worker.{number}", str(number)))

            async def read() -> float:
                began = now()
                for number in ids:
                    _read_statm(number)
                return now() - began

            name = f"memory tick, {count} workers{label}"
            await measure_tick(frame, name, monitor.run_once, (_FLOOR, read))


async def measure_tick(
    frame: Frame,
    name: str,
    run_once: Callable[[], Awaitable[object]],
    floor: tuple[str, Callable[[], Awaitable[float]]],
) -> None:
    """Measure *run_once* beside *floor*, and how long it blocks the loop."""
    gaps: list[float] = []

    async def tick() -> float:
        async with trio.open_nursery() as nursery:
            gap = _Gap()
            nursery.start_soon(gap.watch)
            await trio.sleep(2 * _LOOK / 1000)
            began = now()
            await run_once()
            seconds = now() - began
            await trio.sleep(2 * _LOOK / 1000)
            gaps.append(gap.longest)
            nursery.cancel_scope.cancel()
        return seconds

    taken = await frame.take({floor[0]: floor[1], name: tick})
    frame.add(name, taken, floor=floor[0])
    blocked = f"{name}: loop blocked"
    frame.add(blocked, {blocked: tuple(gaps)}, note="the longest time in each tick")


def _read_statm(process_id: int) -> bytes:
    return Path(f"/proc/{process_id}/statm").read_bytes()


@define(eq=False)
class _Gap:
    """The longest time for which the event loop was blocked [ms]."""

    longest: float = 0.0

    async def watch(self) -> None:
        while True:
            asked = now()
            await trio.sleep(_LOOK / 1000)
            self.longest = max(self.longest, now() - asked - _LOOK)
