"""Measure increments of a counter beside a plain ``+= 1`` and prometheus_client's."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from benchmarks.clock import now
from benchmarks.frame import Frame, Probe
from trio_supervisor import Counter, Metrics
from trio_supervisor.process.shared_numbers import open_numbers, use_numbers
from trio_supervisor.process.shared_values import CAPACITY, ValueTable
from trio_supervisor.worker.client_values import count_in
from trio_supervisor.worker.metrics import WorkerMetrics

_COUNT: Final = 100_000
_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
_FLOOR: Final = f"{_COUNT} times += 1"


async def run(frame: Frame) -> None:
    """Measure many increments by one thread."""
    declared = Metrics(requests_total=Counter(labels={"method": ["GET"]}))
    with open_numbers(declared.slots) as shared:
        numbers = use_numbers(os.dup(shared.descriptor), declared.slots)
        counter = WorkerMetrics(declared, numbers).requests_total.labels(method="GET")
        name = f"{_COUNT} increments"
        series: dict[str, Probe] = {_FLOOR: _plain, name: _repeat(counter.inc)}
        stack = ExitStack()
        try:
            series |= _peers(name, stack)
        except ImportError:
            frame.skip(f"{name} by prometheus_client", "it is not installed")
        with stack:
            taken = await frame.take(series)
        for each in series.keys() - {_FLOOR}:
            frame.add(each, taken, floor=_FLOOR)


def _peers(name: str, stack: ExitStack) -> dict[str, Probe]:
    """Return prometheus_client's: of one process, of many, and in our memory.

    Its counters keep their numbers in objects of the class that it has at the moment.
    """
    library: Any = importlib.import_module("prometheus_client")
    values: Any = importlib.import_module("prometheus_client.values")
    alone = values.ValueClass
    found = {f"{name} by prometheus_client, one process": _increment_of(library)}
    os.environ[_DIRECTORY] = stack.enter_context(tempfile.TemporaryDirectory())
    stack.callback(os.environ.pop, _DIRECTORY)
    values.ValueClass = values.MultiProcessValue()
    found[f"{name} by it, its multiprocess mode"] = _increment_of(library)
    count_in(ValueTable(bytearray(CAPACITY)))
    found[f"{name} by it, in memory of ours"] = _increment_of(library)
    values.ValueClass = alone
    return found


def _increment_of(library: Any) -> Probe:
    counter = library.Counter("requests", "Requests.", ["method"], registry=None)
    return _repeat(counter.labels(method="GET").inc)


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
