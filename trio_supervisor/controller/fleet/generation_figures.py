"""Measure the workers of a generation, to compare it with the next one."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Final

import trio

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.fleet.generation import Generation
from trio_supervisor.policy.process_usage import UsageSample, parse_stat
from trio_supervisor.wire.controller_messages import GenerationFigures, WorkerMeasures

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_MICROSECONDS: Final = 6
"""Digits of times."""


async def measured(generation: Generation) -> GenerationFigures:
    """Return the figures of *generation* as it runs now.

    It reads a few files of /proc for each worker, with a checkpoint after each.
    """
    workers: list[WorkerMeasures] = []
    for child in list(generation.children):
        workers.append(_measures_of(child))
        await trio.lowlevel.checkpoint()
    return GenerationFigures(
        number=generation.number,
        measured_at=round(time.time(), _MICROSECONDS),
        import_seconds=generation.import_seconds,
        workers=tuple(workers),
    )


def _measures_of(child: Child) -> WorkerMeasures:
    process_id = None if child.process is None else child.process.pid
    began = child.started_at
    usage = None if process_id is None else _usage_of(process_id)
    return WorkerMeasures(
        name=child.name,
        service=child.service,
        process_id=process_id,
        start_seconds=_rounded(None if process_id is None else child.start_seconds),
        uptime=_rounded(None if began is None else time.monotonic() - began),
        memory=None if usage is None else usage.rss,
        threads=None if usage is None else usage.threads,
        descriptors=None if process_id is None else _descriptors_of(process_id),
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, _MICROSECONDS)


def _usage_of(process_id: int) -> UsageSample | None:
    with suppress(OSError), open(f"/proc/{process_id}/stat", "rb") as file:
        return parse_stat(process_id, file.read(), ticks=_TICKS, page=_PAGE)
    return None


def _descriptors_of(process_id: int) -> int | None:
    with suppress(OSError):  # it has exited, or runs as another user
        return len(os.listdir(f"/proc/{process_id}/fd"))
    return None
