"""What has left the group of its process, as a daemon does by setsid(2).

Its parent gone, it becomes a child of ours, who are a subreaper; and it still has in
its environment which process it descends from.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Container, Sequence
from contextlib import ExitStack, suppress

import trio

from trio_supervisor.process.cleanup.stopping import StopDeadline, StopPlan
from trio_supervisor.process.groups import (
    command_of,
    has_variable,
    is_alive,
    may_signal,
    open_descriptor,
    signal_descriptor,
)
from trio_supervisor.process.kernel import child_pids
from trio_supervisor.tasks import open_nursery


async def stop_escaped(
    marks: Sequence[str],
    known: Container[int | None],
    plan: StopPlan,
    stop_deadline: StopDeadline,
) -> dict[int, str]:
    """End all that has all *marks* in its environment; return their programs, by pid.

    Asks first, then kills, as `stop` does; and looks again until nothing is left, for
    each of them may leave children of its own to us. To be called under a shield.

    Args:
        marks: Each of them ``NAME=VALUE``.
        known: Children of ours that are none of them.
    """
    if not (found := _find(marks, known)):
        return {}
    ended: dict[int, str] = {}
    with stop_deadline.scope(plan.timeout) as grace:
        while found:
            ended |= {pid: command_of(pid) for pid in found}
            await _signal_all(found, (plan.signal, signal.SIGCONT))
            found = _find(marks, known)
    stop_deadline.forget(grace)
    while found := _find(marks, known):
        ended |= {pid: command_of(pid) for pid in found if pid not in ended}
        await _signal_all(found, (signal.SIGKILL,))
    return ended


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
    """Send *signals* to each, and wait until all have ended; bury them."""
    with ExitStack() as stack:
        async with open_nursery() as nursery:
            for pid in pids:
                # A child of ours keeps its number until it is buried.
                if (descriptor := open_descriptor(pid)) is None:
                    continue
                stack.callback(os.close, descriptor)
                for number in signals:
                    signal_descriptor(descriptor, number)
                nursery.start_soon(trio.lowlevel.wait_readable, descriptor)
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 (it has ended)
