"""Run a helper program (a probe, a `pre_stop`), and clean up all its processes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio
from attrs import evolve

from trio_supervisor.process.child import ChildProcess
from trio_supervisor.process.cleanup.escaped import stop_escaped
from trio_supervisor.process.cleanup.stopping import StopDeadline, StopPlan, stop
from trio_supervisor.process.kernel import child_pids
from trio_supervisor.process.spawn.attributes import NO_ATTRIBUTES, ProcessAttributes
from trio_supervisor.process.spawn.environment import PROCESS_VARIABLE
from trio_supervisor.process.spawn.exec import spawn_exec

_KILL: Final = StopPlan(timeout=0.0)


@asynccontextmanager
async def open_helper(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: str | None = None,
    attributes: ProcessAttributes = NO_ATTRIBUTES,
) -> AsyncIterator[ChildProcess]:
    """Run a program within the block; kill its process group at the end.

    If this process is a subreaper, processes that have left the group, as a daemon does
    with setsid(2), are killed as well.

    Raises:
        OSError: it cannot be started.
    """
    mark = f"helper/{os.urandom(8).hex()}"
    # Existing children cannot descend from it, and need not be checked.
    known = child_pids()
    identity = await attributes.identity()
    process = await spawn_exec(
        arguments,
        environment={
            **attributes.environment(environment, identity),
            PROCESS_VARIABLE: mark,
        },
        directory=directory,
        prepare=attributes.prepare,
        # A directory of its own would be another one than that of the worker.
        own=evolve(attributes, private_tmp=False).own(identity),
    )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            await stop(process, _KILL)
            process.close()
            variable = f"{PROCESS_VARIABLE}={mark}"
            await stop_escaped([variable], known, _KILL, StopDeadline())
