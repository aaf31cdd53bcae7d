"""Measure what `/metrics` of 1,000 workers takes, and how long it blocks the loop."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from benchmarks.clock import now
from benchmarks.floors import open_fork_client
from benchmarks.frame import Frame
from benchmarks.memory_tick import measure_tick
from trio_supervisor import Application, Counter, Gauge, Metrics, Service, Worker
from trio_supervisor.controller.metrics import MetricsBank, metrics_text
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.process.shared_counts import open_counts

_FLOOR: Final = "reading /proc/PID/stat of each"
METRICS: Final = Metrics(requests_total=Counter(), active=Gauge())


async def _serve(worker: Worker) -> None:
    await worker.ready()


async def run(frame: Frame) -> None:
    """Measure the text of all metrics, as Prometheus gets it."""
    count = frame.options.count(1000, quick=20)
    service = Service("web", _serve, count=count, metrics=METRICS)
    with open_fork_client() as forker, ExitStack() as stack:
        ids = forker.sleepers(count)
        bank = MetricsBank()
        children: list[Any] = []
        for index, number in enumerate(ids):
            children.append(_child(index, number))
            shared = open_counts(METRICS.slots, has_values=False)
            assert shared is not None
            bank.begin(children[-1], service, stack.enter_context(shared))
        source: Any = SimpleNamespace(
            application=Application([service]),
            generation=SimpleNamespace(number=1, children=children),
            supervisor=_child(0, os.getpid()),
            load_control=SimpleNamespace(clock=SimpleNamespace(worst=lambda _: 0.0)),
            metrics=bank,
        )

        async def read() -> float:
            began = now()
            for number in ids:
                _read_stat(number)
            return now() - began

        name = f"scrape, {count} workers"
        await measure_tick(frame, name, lambda: metrics_text(source), (_FLOOR, read))


def _read_stat(process_id: int) -> bytes:
    return Path(f"/proc/{process_id}/stat").read_bytes()


def _child(index: int, process_id: int) -> Any:
    """Return what metrics need to know of a worker."""
    return SimpleNamespace(
        name=f"web.{index}",
        service="web",
        process=SimpleNamespace(pid=process_id),
        process_id=process_id,
        state=State.READY,
        restarts=0,
        started_at=time.monotonic(),
        last_ending=None,
        runs=None,
        loop_lag=lambda: 0.001,
    )
