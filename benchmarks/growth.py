"""Measure each figure with 1, 10, 100 and 1,000 workers, and draw them as a PNG.

Run only if named: a thousand processes take minutes on two cores.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Final

import psutil
import trio

from benchmarks.clock import now
from benchmarks.frame import Frame, Row
from benchmarks.serving import Served, open_served
from trio_supervisor import Client, open_client
from trio_supervisor.wire.messages import Workers

COUNTS: Final = (1, 10, 100, 1000)
PICTURE: Final = Path(__file__).with_name("results") / "growth.png"
_CRASHES: Final = 12
_SEVERAL: Final = 100


async def run(frame: Frame) -> None:
    """Measure with each count, then draw."""
    counts = (1, 2) if frame.options.is_quick else COUNTS
    for count in counts:
        await _measure(frame, count)
    draw(frame.rows, PICTURE)


async def _measure(frame: Frame, count: int) -> None:
    starts: list[float] = []
    stops: list[float] = []
    rows: dict[str, tuple[float, ...]] = {}
    repeats = 1 if count >= 1000 or frame.options.is_quick else 3
    for last in range(repeats):
        async with open_served(count) as served:
            ready = await served.wait_all_ready()
            starts.append(ready - served.began)
            await served.settle()
            if last == repeats - 1:
                rows = await _measure_running(served, count)
            began = now()
            served.process.terminate()
            if await served.process.wait() != 0:
                raise RuntimeError(f"serve ended with {served.process.returncode}")
            stops.append(now() - began)
    rows = {"start to all ready": tuple(starts), **rows, "graceful stop": tuple(stops)}
    for figure, samples in rows.items():
        unit = "MiB" if figure.startswith("PSS") else "ms"
        unit = "descriptors" if figure.startswith("descriptors") else unit
        name = f"{figure}, {count} workers"
        frame.add(name, {name: samples}, unit=unit)


async def _measure_running(served: Served, count: int) -> dict[str, tuple[float, ...]]:
    both = [served.process.pid, served.process_ids["supervisor"]]
    rows: dict[str, tuple[float, ...]] = {
        "PSS of controller and supervisor": (sum(map(_pss, both)),),
        "PSS of a worker": (_worker_pss(served),),
        "descriptors of the controller": (float(_descriptors(served.process.pid)),),
    }
    async with open_client(served.socket) as client:
        rows["status"] = await _time_status(client)
    rows["crash to ready"] = await _time_crashes(served)
    if count > 1:
        rows["a tenth killed at once"] = (await _time_many(served),)
    rows["supervisor killed to all registered"] = (await _time_supervisor(served),)
    return rows


async def _time_status(client: Client) -> tuple[float, ...]:
    samples = []
    for _ in range(20):
        began = now()
        await client.status()
        samples.append(now() - began)
    return tuple(samples)


async def _time_crashes(served: Served) -> tuple[float, ...]:
    samples = []
    names = cycle(served.workers)
    for _ in range(_CRASHES):
        await trio.sleep(0.1)
        name, since, began = next(names), served.mark(), now()
        served.kill(name)
        samples.append(await served.wait_ready(name, since) - began)
    return tuple(samples)


async def _time_many(served: Served) -> float:
    """Kill a tenth of the workers, at most a hundred; wait for their replacements."""
    await served.settle()
    workers = served.workers
    victims = workers[:: max(1, len(workers) // min(_SEVERAL, len(workers) // 10 or 1))]
    since, began = served.mark(), now()
    for name in victims:
        served.kill(name)
    return max([await served.wait_ready(name, since) for name in victims]) - began


async def _time_supervisor(served: Served) -> float:
    await served.settle()
    since, began = served.mark(), now()
    served.kill("supervisor")
    await served.wait_ready("supervisor", since)
    async with open_client(served.socket) as client:
        await client.call(Workers(wait_ready=True))
    return now() - began


def _pss(process_id: int) -> float:
    return float(psutil.Process(process_id).memory_full_info().pss) / 2**20


def _worker_pss(served: Served) -> float:
    some = served.workers[:: max(1, len(served.workers) // 20)]
    return median(_pss(served.process_ids[name]) for name in some)


def _descriptors(process_id: int) -> int:
    return len(os.listdir(f"/proc/{process_id}/fd"))


def draw(rows: Sequence[Row], path: Path) -> bool:
    """Draw the medians over the number of workers; return False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: matplotlib is not installed")
        return False
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    for name, points in _lines(rows).items():
        axes.plot(list(points), list(points.values()), marker="o", label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("workers")
    axes.set_ylabel("ms, MiB, descriptors")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(f"drawn: {path}")
    return True


def _lines(rows: Sequence[Row]) -> Mapping[str, dict[int, float]]:
    lines: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.entry != "growth":
            continue
        name, _, count = row.name.rpartition(", ")
        lines.setdefault(name, {})[int(count.split()[0])] = row.median
    return lines
