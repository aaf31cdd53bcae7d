"""Figures of each worker for the metrics, read in the event loop."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

import trio
from attrs import frozen

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.fleet.overload import OverloadControl
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.process_usage import UsageSample, parse_stat
from trio_supervisor.process.threads import run_in_thread
from trio_supervisor.wire.workers import ScheduleStatus

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_IN_A_TURN: Final = 100
"""Workers that are sampled in one turn of the event loop."""


class HasFigures(Protocol):
    """The controller, as far as figures of its processes are concerned."""

    supervisor: Child
    load_control: OverloadControl

    @property
    def generation(self) -> HasWorkers: ...


class HasWorkers(Protocol):
    """A generation, as far as its metrics are concerned."""

    @property
    def number(self) -> int: ...
    @property
    def children(self) -> Iterable[Child]: ...


@frozen
class WorkerFigures:
    """What is known of one worker, to be read without the event loop."""

    name: str
    service: str
    process_id: int | None
    state: State
    restarts: int
    start_time: float | None
    """When its process was started [s since the epoch]; None: it has none."""
    last_exit: int | None
    """Exit code of its last process, -n: killed by signal n; None: none has exited."""
    schedule: ScheduleStatus | None
    loop_lag: float | None
    """How late its event loop is, or was with its last heartbeat [s]; None: unknown."""

    def usage(self) -> UsageSample | None:
        """Return what its process uses; None: it has exited, or /proc is not there."""
        return None if self.process_id is None else usage_of(self.process_id)


async def figures_of(source: HasFigures) -> list[WorkerFigures]:
    """Return the figures of all workers of the current generation.

    Of a thousand, they take milliseconds: others have their turn in between.
    """
    found = []
    for number, child in enumerate(source.generation.children, start=1):
        found.append(_figures_of(child))
        if not number % _IN_A_TURN:
            await trio.lowlevel.checkpoint()
    return found


def _figures_of(child: Child) -> WorkerFigures:
    return WorkerFigures(
        child.name,
        child.service,
        child.process_id,
        child.state,
        child.restarts,
        _start_time(child),
        None if child.last_ending is None else child.last_ending.returncode,
        child.runs,
        child.loop_lag(),
    )


async def resident_sizes(process_ids: Sequence[int]) -> dict[int, int]:
    """Return the resident memory of processes [bytes]; those that exited are left out.

    Shared pages count in full. In the proportional part (pss), the only worker of a new
    generation would have more than workers that share their pages with many others.
    """
    return await run_in_thread(partial(_resident_sizes, process_ids))


def _resident_sizes(process_ids: Sequence[int]) -> dict[int, int]:
    found = {each: usage_of(each) for each in process_ids}
    return {each: use.rss for each, use in found.items() if use is not None}


def usage_of(process_id: int) -> UsageSample | None:
    """Return what a process uses; None: it has exited, or /proc is not there."""
    with suppress(OSError), open(f"/proc/{process_id}/stat", "rb") as file:
        return parse_stat(process_id, file.read(), ticks=_TICKS, page=_PAGE)
    return None


def loop_lags_of(source: HasFigures) -> dict[str, float]:
    """Return how late the event loops of our own processes were lately [s]."""
    lags = {"controller": source.load_control.clock.worst(trio.current_time())}
    if (lag := source.supervisor.loop_lag()) is not None:
        lags["supervisor"] = lag
    return lags


def _start_time(child: Child) -> float | None:
    if child.process is None or child.started_at is None:
        return None
    return time.time() - (time.monotonic() - child.started_at)
