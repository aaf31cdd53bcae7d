"""Measure increments of a counter beside a plain ``+= 1`` and prometheus_client's."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any, Final

from benchmarks.clock import now
from benchmarks.frame import Frame, Probe
from trio_supervisor import Counter, Metrics
from trio_supervisor.process.shared_numbers import open_numbers, use_numbers
from trio_supervisor.worker.metrics import WorkerMetrics

_COUNT: Final = 100_000
_FLOOR: Final = f"{_COUNT} times += 1"


async def run(frame: Frame) -> None:
    """Measure many increments by one thread."""
    declared = Metrics(requests_total=Counter(labels={"method": ["GET"]}))
    with open_numbers(declared.slots) as shared:
        numbers = use_numbers(os.dup(shared.descriptor), declared.slots)
        counter = WorkerMetrics(declared, numbers).requests_total.labels(method="GET")
        name = f"{_COUNT} increments"
        series: dict[str, Probe] = {_FLOOR: _plain, name: _repeat(counter.inc)}
        peer = f"{name}, prometheus_client in one process"
        try:
            peers: Any = importlib.import_module("prometheus_client")
        except ImportError:
            frame.skip(peer, "prometheus_client is not installed")
        else:
            theirs = peers.Counter("requests", "Requests.", ["method"])
            series[peer] = _repeat(theirs.labels(method="GET").inc)
        taken = await frame.take(series)
        for each in series.keys() - {_FLOOR}:
            frame.add(each, taken, floor=_FLOOR)


async def _plain() -> float:
    numbers = [0.0]
    began = now()
    for _ in range(_COUNT):
        numbers[0] += 1
    return now() - began


def _repeat(increment: Callable[[], None]) -> Probe:
    async def probe() -> float:
        began = now()
        for _ in range(_COUNT):
            increment()
        return now() - began

    return probe
