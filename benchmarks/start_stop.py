"""Time `serve` until all workers are ready, and SIGTERM until all have exited."""

from __future__ import annotations

from benchmarks.clock import now
from benchmarks.floors import ForkClient, import_trio, open_fork_client
from benchmarks.frame import Frame, Probe
from benchmarks.serving import open_served

_FLOOR = "exec + import trio + {} forks"


async def run(frame: Frame) -> None:
    """Measure with 4, 100 and 500 workers."""
    counts = (4,) if frame.options.is_quick else (4, 100, 500)
    with open_fork_client() as forker:
        for count in counts:
            await _measure(frame, forker, count)


async def _measure(frame: Frame, forker: ForkClient, count: int) -> None:
    stops: list[float] = []

    async def start() -> float:
        async with open_served(count) as served:
            ready = await served.wait_all_ready() - served.began
            await served.settle()
            began = now()
            served.process.terminate()
            if await served.process.wait() != 0:
                raise RuntimeError(f"serve ended with {served.process.returncode}")
            stops.append(now() - began)
        return ready

    floor = _FLOOR.format(count)
    name = f"serve to all ready, {count} workers"
    stopped = f"graceful stop, {count} workers"
    # 500 workers take long; ten samples are enough for the median.
    repeats = max(1, frame.options.repeats // (1 if count < 500 else 3))
    series = {floor: _start_floor(forker, count), name: start}
    taken = await frame.take(series, repeats=repeats)
    frame.add(name, taken, floor=floor)
    frame.add(stopped, {stopped: tuple(stops)})


def _start_floor(forker: ForkClient, count: int) -> Probe:
    execute, fork = import_trio(), forker.probe("fork", count)

    async def measure() -> float:
        return await execute() + await fork()

    return measure
