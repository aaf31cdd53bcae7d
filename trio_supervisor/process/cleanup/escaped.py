"""Stop processes that have left the group of their worker, as a daemon does.

When its parent has exited, such a process becomes a child of this process, which is a
subreaper; its environment still shows from which worker it descends.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Container, Sequence
from contextlib import ExitStack, suppress
from typing import Final

import trio

from trio_supervisor.process.cleanup.stopping import StopDeadline, StopPlan
from trio_supervisor.process.groups import (
    command_of,
    has_environment,
    has_variable,
    is_alive,
    may_signal,
    open_descriptor,
    signal_descriptor,
)
from trio_supervisor.process.kernel import child_pids
from trio_supervisor.tasks import open_nursery

_EXECUTING: Final = 0.1
"""How long execve(2) may take; a process without any environment costs that [s]."""
_LOOKS: Final = 20


async def stop_escaped(
    marks: Sequence[str],
    known: Container[int | None],
    plan: StopPlan,
    stop_deadline: StopDeadline,
) -> dict[int, str]:
    """Stop children with all *marks* in their environment; return program names by pid.

    As `stop` does, it sends the stop signal first and SIGKILL later. It repeats until
    nothing is left, since a process that exits may leave children. Call it under a
    shield.

    Args:
        marks: Each of them ``NAME=VALUE``.
        known: Children of this process that are not to be stopped.
    """
    await _wait_executed(known)
    if not (found := _find(marks, known)):
        return {}
    ended: dict[int, str] = {}
    with stop_deadline.scope(plan.timeout):
        while found:
            ended |= {pid: command_of(pid) for pid in found}
            await _signal_all(found, (plan.signal, signal.SIGCONT))
            found = _find(marks, known)
    while found := _find(marks, known):
        ended |= {pid: command_of(pid) for pid in found if pid not in ended}
        await _signal_all(found, (signal.SIGKILL,))
    return ended


async def _wait_executed(known: Container[int | None]) -> None:
    """Wait until no child is in the middle of execve(2), when it shows no marks."""
    for _ in range(_LOOKS):
        children = [pid for pid in child_pids() if pid not in known]
        if all(has_environment(pid) or not is_alive(pid) for pid in children):
            return
        await trio.sleep(_EXECUTING / _LOOKS)


def _find(marks: Sequence[str], known: Container[int | None]) -> list[int]:
    variables = [mark.encode() for mark in marks]
    return [
        pid
        for pid in child_pids()
        if pid not in known
        and is_alive(pid)
        and all(has_variable(pid, variable) for variable in variables)
        and may_signal(pid)
    ]


async def _signal_all(pids: list[int], signals: tuple[int, ...]) -> None:
    """Send *signals* to each, wait until all have exited, and reap them."""
    with ExitStack() as stack:
        async with open_nursery() as nursery:
            for pid in pids:
                # A child keeps its number until it is reaped.
                if (descriptor := open_descriptor(pid)) is None:
                    continue
                stack.callback(os.close, descriptor)
                for number in signals:
                    signal_descriptor(descriptor, number)
                nursery.start_soon(trio.lowlevel.wait_readable, descriptor)
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 (it has exited)
