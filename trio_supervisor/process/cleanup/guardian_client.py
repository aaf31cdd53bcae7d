"""Keep a guardian running, and its table up to date. The controller's side."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Final, NamedTuple

import trio
from attrs import define, field

from trio_supervisor.process.child import ChildProcess
from trio_supervisor.process.cleanup.stopping import StopPlan, stop
from trio_supervisor.process.repeated_failures import RepeatedFailures
from trio_supervisor.process.shortage import shortage_of, text_of
from trio_supervisor.tasks import open_nursery

logger = logging.getLogger(__name__)

_RETRY: Final = 1.0
# It ignores stop signals, so that it survives a signal to the controller's group.
_STOP: Final = StopPlan(timeout=2.0)
# Time for which changes are collected before they are written [s].
_BATCH_DELAY: Final = 0.01


class Output(NamedTuple):
    """One output pipe of a child."""

    descriptor: int
    """The read end."""
    name: str
    stream: str
    path: str | None
    """File that its lines are written to; None: the output of the controller."""
    form: str
    """Form of the lines there."""


@define(eq=False)
class GuardianClient:
    """Groups to stop if this process is killed; made by `open_guardian`."""

    _marker: str
    _directory: str
    _outputs_of: Callable[[int], Sequence[Output]] = field(default=lambda _: ())
    """Returns the current output pipes of the leader of a group."""
    _groups: dict[int, StopPlan] = field(factory=dict, init=False)
    _unsent: list[str] = field(factory=list, init=False)
    _outputs_unsent: dict[int, None] = field(factory=dict, init=False)
    """Groups whose outputs the guardian has yet to receive, or to close."""
    _changed: trio.lowlevel.ParkingLot = field(
        factory=trio.lowlevel.ParkingLot, init=False
    )
    _trouble: RepeatedFailures = field(
        factory=lambda: RepeatedFailures(logger, "guardian running"), init=False
    )
    process_id: int | None = field(default=None, init=False)
    """Of the guardian; None: no guardian at the moment."""

    def watch(self, group: int, plan: StopPlan) -> None:
        """Stop *group* by *plan* if this process is killed."""
        self._groups[group] = plan
        self._outputs_unsent[group] = None
        self._write_line(f"+ {group} {int(plan.signal)} {plan.timeout}\n")

    def forget(self, group: int) -> None:
        """Stop watching *group*, which has no process any more."""
        self._groups.pop(group, None)
        self._outputs_unsent[group] = None
        self._write_line(f"- {group}\n")

    def _write_line(self, line: str) -> None:
        self._unsent.append(line)
        self._changed.unpark_all()

    async def _keep(self, environment: Mapping[str, str]) -> None:
        """Keep one guardian running until cancelled; then dismiss it."""
        while True:
            try:
                await self._run_one(environment)
            except (OSError, MemoryError) as exc:
                problem = text_of(shortage_of(exc) or OSError(str(exc)))
                self._trouble.failed(f"cannot start a guardian: {problem}; retrying")
            else:
                logger.warning("guardian was killed; starting a new one")
            await trio.sleep(_RETRY)

    async def _run_one(self, environment: Mapping[str, str]) -> None:
        arguments = ["-m", "trio_supervisor.process.cleanup.guardian"]
        with ExitStack() as stack:
            # Created first: nothing may fail after the process was started.
            outputs, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.callback(outputs.close)
            outputs.setblocking(False)
            with theirs:
                reading, writing = os.pipe()
                stack.callback(os.close, writing)
                try:
                    process = subprocess.Popen(  # noqa: ASYNC220 (as quick as a fork)
                        [
                            *(sys.executable, *arguments),
                            *(self._marker, self._directory),
                            str(theirs.fileno()),
                        ],
                        stdin=reading,
                        env=environment,
                        start_new_session=True,  # not reached by Ctrl-C in a terminal
                        pass_fds=[theirs.fileno()],
                    )
                finally:
                    os.close(reading)
            stack.pop_all()
        self._trouble.worked()
        process.returncode = 0  # Popen must not reap it: see `spawn_exec`
        child = ChildProcess(process.pid)
        pipe = trio.lowlevel.FdStream(writing)
        self.process_id = process.pid
        self._unsent = [
            f"+ {group} {int(plan.signal)} {plan.timeout}\n"
            for group, plan in self._groups.items()
        ]
        self._outputs_unsent = dict.fromkeys(self._groups)
        try:
            async with pipe, open_nursery() as nursery:
                nursery.start_soon(self._write, pipe, outputs)
                await child.wait()
                nursery.cancel_scope.cancel()
        except* trio.BrokenResourceError:
            pass
        finally:
            outputs.close()
            self.process_id = None
            # It was dismissed and exits; one that hangs must not block the exit.
            await stop(child, _STOP)
            child.close()

    async def _write(
        self, pipe: trio.lowlevel.FdStream, outputs: socket.socket
    ) -> None:
        try:
            while True:
                # Many children start and exit at a time, and a starting child needs
                # the CPU more. Until then, its lifeline stops it.
                await trio.sleep(_BATCH_DELAY)
                lines, self._unsent = self._unsent, []
                if lines:
                    await pipe.send_all("".join(lines).encode())
                while self._outputs_unsent:
                    await self._send_outputs(outputs, next(iter(self._outputs_unsent)))
                if not self._unsent:
                    await self._changed.park()
        finally:
            # The newline ends a line that was cut by the cancellation.
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await pipe.send_all(b"\nquit\n")

    async def _send_outputs(self, outputs: socket.socket, group: int) -> None:
        """Send copies of the pipes of *group* to the guardian, or close them there."""
        # Without a checkpoint in between, in which a descriptor could be reused.
        found = self._outputs_of(group) if group in self._groups else ()
        fields = [[o.name, o.stream, o.path, o.form] for o in found]
        keys = ("name", "stream", "path", "form")
        text = json.dumps([dict(zip(keys, each, strict=True)) for each in fields])
        packet = f"{group}\n{text}".encode()
        try:
            socket.send_fds(outputs, [packet], [o.descriptor for o in found])
        except BlockingIOError:
            await trio.lowlevel.wait_writable(outputs)
        except OSError:  # the guardian was killed; the next one gets everything
            self._outputs_unsent.clear()
        else:
            self._outputs_unsent.pop(group, None)


@asynccontextmanager
async def open_guardian(
    marker: str,
    directory: str,
    environment: Mapping[str, str],
    outputs_of: Callable[[int], Sequence[Output]] = lambda _: (),
) -> AsyncIterator[GuardianClient]:
    """Keep a guardian running within the block.

    Args:
        marker: ``NAME=VALUE`` in the environment of all children.
        directory: Removed by the guardian if this process is killed.
        environment: Environment of the guardian, without the marker.
        outputs_of: Returns the output pipes of the leader of a group, which the
            guardian keeps reading if this process is killed.
    """
    guardian = GuardianClient(marker, directory, outputs_of)
    async with open_nursery() as nursery:
        nursery.start_soon(guardian._keep, environment)
        yield guardian
        nursery.cancel_scope.cancel()
