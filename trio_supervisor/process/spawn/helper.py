"""Run a program of which nothing is left afterwards: a probe, or a `pre_stop`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from trio_supervisor.process.child import ChildProcess
from trio_supervisor.process.cleanup.escaped import stop_escaped
from trio_supervisor.process.cleanup.stopping import StopDeadline, StopPlan, stop
from trio_supervisor.process.kernel import child_pids
from trio_supervisor.process.spawn.environment import PROCESS_VARIABLE
from trio_supervisor.process.spawn.exec import spawn_exec

_AT_ONCE: Final = StopPlan(timeout=0.0)


@asynccontextmanager
async def open_helper(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: str | None = None,
) -> AsyncIterator[ChildProcess]:
    """Have a program run for the length of the block; kill what is left of it then.

    With all of its process group, and where this process is a subreaper, with what has
    left that, as a daemon does by setsid(2).

    Raises:
        OSError: it cannot be started.
    """
    mark = f"helper/{os.urandom(8).hex()}"
    # What was there before is none of it, and need not be looked at.
    known = child_pids()
    process = await spawn_exec(
        arguments,
        environment={**environment, PROCESS_VARIABLE: mark},
        directory=directory,
    )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            await stop(process, _AT_ONCE)
            process.close()
            variable = f"{PROCESS_VARIABLE}={mark}"
            await stop_escaped([variable], known, _AT_ONCE, StopDeadline())
