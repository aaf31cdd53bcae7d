"""The controller's side of the guardian: keep one alive, and its table up to date."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.process.child import ChildProcess
from trio_supervisor.process.stopping import StopPlan, stop

logger = logging.getLogger(__name__)

_RETRY: Final = 1.0
# It ignores signals, so that it outlives whatever ends the controller.
_STOP: Final = StopPlan(timeout=2.0)
# How long news for the guardian is gathered [s].
_GATHER: Final = 0.01


@define(eq=False)
class Guard:
    """What is to be ended should this process be killed; made by `open_guard`."""

    _marker: str
    _directory: str
    _groups: dict[int, StopPlan] = field(factory=dict, init=False)
    _unsent: list[str] = field(factory=list, init=False)
    _wake: trio.Event = field(factory=trio.Event, init=False)
    process_id: int | None = field(default=None, init=False)
    """Of the guardian; None: there is none at the moment."""

    def watch(self, group: int, plan: StopPlan) -> None:
        """Have *group* ended as *plan* says, should this process be killed."""
        self._groups[group] = plan
        self._say(f"+ {group} {int(plan.signal)} {plan.timeout}\n")

    def forget(self, group: int) -> None:
        """Say that nothing of *group* is left."""
        self._groups.pop(group, None)
        self._say(f"- {group}\n")

    def _say(self, line: str) -> None:
        self._unsent.append(line)
        self._wake.set()

    async def _keep(self, environment: Mapping[str, str]) -> None:
        """Keep one guardian alive until cancelled; then dismiss it."""
        while True:
            try:
                await self._run_one(environment)
            except OSError as exc:
                logger.warning("no guardian: %s; trying again", exc)
            else:
                logger.warning("the guardian was killed; starting another")
            await trio.sleep(_RETRY)

    async def _run_one(self, environment: Mapping[str, str]) -> None:
        arguments = ["-m", "trio_supervisor.process.guardian"]
        process = subprocess.Popen(  # noqa: ASYNC220 (once, and as quick as a fork)
            [sys.executable, *arguments, self._marker, self._directory],
            stdin=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
        )
        process.returncode = 0  # ours to reap: see spawn_exec
        child = ChildProcess(process.pid)
        assert process.stdin is not None
        pipe = trio.lowlevel.FdStream(os.dup(process.stdin.fileno()))
        process.stdin.close()
        self.process_id = process.pid
        self._unsent = [
            f"+ {group} {int(plan.signal)} {plan.timeout}\n"
            for group, plan in self._groups.items()
        ]
        try:
            async with pipe, trio.open_nursery() as nursery:
                nursery.start_soon(self._write, pipe)
                await child.wait()
                nursery.cancel_scope.cancel()
        except* trio.BrokenResourceError:
            pass
        finally:
            self.process_id = None
            # It was dismissed, and ends; one that hangs does not keep us.
            await stop(child, _STOP)
            child.close()

    async def _write(self, pipe: trio.lowlevel.FdStream) -> None:
        try:
            while True:
                # Many children come and go at once; and a child that comes needs the
                # processor more than we do. Its own lifeline covers it until then.
                await trio.sleep(_GATHER)
                lines, self._unsent = self._unsent, []
                if lines:
                    await pipe.send_all("".join(lines).encode())
                if not self._unsent:
                    self._wake = trio.Event()
                    await self._wake.wait()
        finally:
            # A line cut by the cancellation ends here; the next one counts alone.
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await pipe.send_all(b"\nquit\n")


@asynccontextmanager
async def open_guard(
    marker: str, directory: str, environment: Mapping[str, str]
) -> AsyncIterator[Guard]:
    """Have a guardian for the length of the block.

    Args:
        marker: ``NAME=VALUE``, which all children have in their environment.
        directory: Removed by the guardian, should this process be killed.
        environment: Of the guardian; without the marker.
    """
    guard = Guard(marker, directory)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guard._keep, environment)
        yield guard
        nursery.cancel_scope.cancel()
