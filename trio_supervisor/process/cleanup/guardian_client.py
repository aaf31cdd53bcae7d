"""The controller's side of the guardian: keep one alive, and its table up to date."""

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
# It ignores signals, so that it outlives whatever ends the controller.
_STOP: Final = StopPlan(timeout=2.0)
# How long news for the guardian is gathered [s].
_GATHER: Final = 0.01


class Output(NamedTuple):
    """One pipe of a child."""

    descriptor: int
    """The end to read from."""
    name: str
    stream: str
    path: str | None
    """The file that its lines go to; None: into our own output."""
    form: str
    """How they look there."""


@define(eq=False)
class GuardianClient:
    """What is to be ended should this process be killed; made by `open_guardian`."""

    _marker: str
    _directory: str
    _outputs_of: Callable[[int], Sequence[Output]] = field(default=lambda _: ())
    """Returns the ends to read from of the pipes of a group's leader, now."""
    _groups: dict[int, StopPlan] = field(factory=dict, init=False)
    _unsent: list[str] = field(factory=list, init=False)
    _untold: dict[int, None] = field(factory=dict, init=False)
    """Groups whose outputs the guardian does not have yet, or has to give back."""
    _wake: trio.Event = field(factory=trio.Event, init=False)
    _trouble: RepeatedFailures = field(
        factory=lambda: RepeatedFailures(logger, "there is a guardian"), init=False
    )
    process_id: int | None = field(default=None, init=False)
    """Of the guardian; None: there is none at the moment."""

    def watch(self, group: int, plan: StopPlan) -> None:
        """Have *group* ended as *plan* says, should this process be killed."""
        self._groups[group] = plan
        self._untold[group] = None
        self._say(f"+ {group} {int(plan.signal)} {plan.timeout}\n")

    def forget(self, group: int) -> None:
        """Say that nothing of *group* is left."""
        self._groups.pop(group, None)
        self._untold[group] = None
        self._say(f"- {group}\n")

    def _say(self, line: str) -> None:
        self._unsent.append(line)
        self._wake.set()

    async def _keep(self, environment: Mapping[str, str]) -> None:
        """Keep one guardian alive until cancelled; then dismiss it."""
        while True:
            try:
                await self._run_one(environment)
            except (OSError, MemoryError) as exc:
                problem = text_of(shortage_of(exc) or OSError(str(exc)))
                self._trouble.failed(f"no guardian: {problem}; trying again")
            else:
                logger.warning("the guardian was killed; starting another")
            await trio.sleep(_RETRY)

    async def _run_one(self, environment: Mapping[str, str]) -> None:
        arguments = ["-m", "trio_supervisor.process.cleanup.guardian"]
        with ExitStack() as stack:
            # All of them first: nothing may fail once there is a process.
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
                        start_new_session=True,  # out of reach of a terminal's Ctrl-C
                        pass_fds=[theirs.fileno()],
                    )
                finally:
                    os.close(reading)
            stack.pop_all()
        self._trouble.worked()
        process.returncode = 0  # ours to reap: see spawn_exec
        child = ChildProcess(process.pid)
        pipe = trio.lowlevel.FdStream(writing)
        self.process_id = process.pid
        self._unsent = [
            f"+ {group} {int(plan.signal)} {plan.timeout}\n"
            for group, plan in self._groups.items()
        ]
        self._untold = dict.fromkeys(self._groups)
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
            # It was dismissed, and ends; one that hangs does not keep us.
            await stop(child, _STOP)
            child.close()

    async def _write(
        self, pipe: trio.lowlevel.FdStream, outputs: socket.socket
    ) -> None:
        try:
            while True:
                # Many children come and go at once; and a child that comes needs the
                # processor more than we do. Its own lifeline covers it until then.
                await trio.sleep(_GATHER)
                lines, self._unsent = self._unsent, []
                if lines:
                    await pipe.send_all("".join(lines).encode())
                while self._untold:
                    await self._tell_outputs(outputs, next(iter(self._untold)))
                if not self._unsent:
                    self._wake = trio.Event()
                    await self._wake.wait()
        finally:
            # A line cut by the cancellation ends here; the next one counts alone.
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await pipe.send_all(b"\nquit\n")

    async def _tell_outputs(self, outputs: socket.socket, group: int) -> None:
        """Give the guardian copies of the pipes of *group*, or have it close them."""
        # Looked up and sent in one go: a descriptor may be another one later.
        found = self._outputs_of(group) if group in self._groups else ()
        fields = [[o.name, o.stream, o.path, o.form] for o in found]
        keys = ("name", "stream", "path", "form")
        text = json.dumps([dict(zip(keys, each, strict=True)) for each in fields])
        packet = f"{group}\n{text}".encode()
        try:
            socket.send_fds(outputs, [packet], [o.descriptor for o in found])
        except BlockingIOError:
            await trio.lowlevel.wait_writable(outputs)
        except OSError:  # the guardian was killed; the next one is told everything
            self._untold.clear()
        else:
            self._untold.pop(group, None)


@asynccontextmanager
async def open_guardian(
    marker: str,
    directory: str,
    environment: Mapping[str, str],
    outputs_of: Callable[[int], Sequence[Output]] = lambda _: (),
) -> AsyncIterator[GuardianClient]:
    """Have a guardian for the length of the block.

    Args:
        marker: ``NAME=VALUE``, which all children have in their environment.
        directory: Removed by the guardian, should this process be killed.
        environment: Of the guardian; without the marker.
        outputs_of: Returns the pipes through which the leader of a group prints: the
            guardian reads on should this process be killed.
    """
    guardian = GuardianClient(marker, directory, outputs_of)
    async with open_nursery() as nursery:
        nursery.start_soon(guardian._keep, environment)
        yield guardian
        nursery.cancel_scope.cancel()
