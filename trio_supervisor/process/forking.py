"""The controller's side of the fork server: keep one alive, and let it fork."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any, Final

import trio
from attrs import define, field

from trio_supervisor.process.child import ChildProcess, describe_exit
from trio_supervisor.process.documents import open_document
from trio_supervisor.process.fork_server_start import (
    Birth,
    ForkServerPlan,
    Started,
    start_fork_server,
)
from trio_supervisor.process.stopping import StopPlan, stop

logger = logging.getLogger(__name__)

# After so many the application itself is likely to end its process when imported.
_MAX_FAILURES: Final = 3
# A spare child may be killed just when it is needed; hardly three in a row.
_MAX_ATTEMPTS: Final = 3
_STOP: Final = StopPlan(timeout=2.0)
# A signal would end it in the middle of these [s].
_EXIT_HANDLERS: Final = 1.0
# The first replacement is immediate; one that dies at once is tried again more slowly.
_RETRIES: Final = (0.0, 0.1, 0.5, 2.0, 5.0)


@define(eq=False)
class Forker:
    """Forks children; made by `open_forker`."""

    _plan: ForkServerPlan
    _started: Started | None
    _is_wanted: trio.Event = field(factory=trio.Event)
    """Set when there is to be a server."""
    _control: trio.socket.SocketType | None = field(default=None, init=False)
    _is_there: trio.Event = field(factory=trio.Event, init=False)
    _sending: trio.Lock = field(factory=trio.Lock, init=False)
    _failures: int = field(default=0, init=False)
    """Servers in a row that ended without a child."""
    process_id: int | None = field(default=None, init=False)
    """Of the server; None: there is none at the moment."""
    births: int = field(default=0, init=False)
    """Children that are being forked at the moment."""
    spares: set[int] = field(factory=set, init=False)
    """Children of ours that are parked, or were; their zombies are to be reaped."""

    async def fork(
        self,
        entry: str,
        boot: Any,
        *,
        environment: Mapping[str, str],
        title: str,
        descriptors: Sequence[int],
        streams: tuple[int, int] | None = None,
        runs_application: bool = True,
    ) -> ChildProcess:
        """Have a child forked, and return its process, which the caller has to stop.

        A server that dies meanwhile is replaced and asked again: the child is started
        once. A cancellation leaves no child behind: what was not confirmed ends itself.

        Args:
            entry: ``module:function`` that the child calls with *boot* and its copies
                of *descriptors*.
            streams: Its standard output and error; None: those of the server.
            runs_application: Whether it is to find all that the import has changed.

        Raises:
            OSError: the system does not let the server fork, or the server ends again
                and again.
        """
        birth = Birth(
            entry,
            dict(environment),
            title,
            boot,
            has_streams=streams is not None,
            runs_application=runs_application,
        )
        descriptors = [*(streams or ()), *descriptors]
        self._is_wanted.set()
        self.births += 1
        try:
            return await self._fork(birth, descriptors)
        finally:
            self.births -= 1

    async def _fork(self, birth: Birth, descriptors: Sequence[int]) -> ChildProcess:
        with open_document(pickle.dumps(birth)) as document:
            attempts, last = 0, None
            while attempts < _MAX_ATTEMPTS:
                control = await self._server()
                attempts, last = (attempts if control is last else 0), control
                process = await self._ask(control, [document, *descriptors])
                if process is not None:
                    return process
                if control is self._control:
                    attempts += 1  # killed; or the server was, and that comes next
                elif self._failures >= _MAX_FAILURES:
                    raise OSError("the fork server ends again and again")
            raise OSError("forked children die before they begin")

    async def _ask(
        self, control: trio.socket.SocketType, descriptors: Sequence[int]
    ) -> ChildProcess | None:
        """Make one request; None: nothing came of it."""
        ours, theirs = trio.socket.socketpair()
        with ours:
            document, *others = descriptors
            with theirs:
                try:
                    async with self._sending:  # it may wait, and one at a time may
                        await _send(control, [document, theirs.fileno(), *others])
                except OSError:  # it has ended, before that was noticed
                    self._lose(control)
                    await trio.lowlevel.checkpoint()
                    return None
            try:
                answer = await ours.recv(4096)
            except OSError:
                return None
            if answer.startswith(b"!"):
                raise OSError(answer[1:].decode())
            if not answer:
                return None
            # It waits for our word, so that its number is its own until then.
            process = ChildProcess(int(answer))
            self.spares.discard(process.pid)
            self._failures = 0
            try:
                await ours.send(b"g")
            except OSError:
                logger.debug("a forked child ended before it began")
            except BaseException:
                with trio.CancelScope(shield=True):
                    await stop(process, _STOP)
                process.close()
                raise
            return process

    async def _server(self) -> trio.socket.SocketType:
        while self._control is None:
            await self._is_there.wait()
        return self._control

    def _lose(self, control: trio.socket.SocketType) -> None:
        if self._control is control:
            self._control = self.process_id = None
            self._is_there = trio.Event()

    async def _keep(self) -> None:
        """Keep one server alive until cancelled."""
        await self._is_wanted.wait()
        while True:
            try:
                process = await self._run_one()
            except OSError as exc:
                logger.error("no fork server: %s; trying again", exc)
            else:
                how = describe_exit(process.returncode)
                logger.warning("the fork server ended (%s); starting another", how)
            pause = _RETRIES[min(self._failures, len(_RETRIES) - 1)]
            self._failures += 1
            await trio.sleep(pause)

    async def _run_one(self) -> ChildProcess:
        started, self._started = self._started, None
        if started is None:
            started = await trio.to_thread.run_sync(start_fork_server, self._plan)
        process = ChildProcess(started.process_id)
        control = trio.socket.from_stdlib_socket(started.control)
        with control, ExitStack() as stack:
            stack.callback(os.close, started.report)
            try:
                # It takes requests while it still imports, and answers them after.
                self._control, self.process_id = control, process.pid
                self._is_there.set()
                async with trio.open_nursery() as nursery:
                    # A process that the import has forked may keep the connection.
                    nursery.start_soon(_cancel_after, process, nursery.cancel_scope)
                    await self._listen(control)
                    nursery.cancel_scope.cancel()
            finally:
                self._lose(control)
                # It ends by that, and runs the exit handlers of the import.
                control.close()
                with trio.CancelScope(shield=True):
                    with trio.move_on_after(_EXIT_HANDLERS):
                        await process.wait()
                    await stop(process, _STOP)
                process.close()
        return process

    async def _listen(self, control: trio.socket.SocketType) -> None:
        """Hear what the server has to say, until it is gone."""
        while True:
            try:
                data = await control.recv(4096)
            except OSError:
                return
            match data[:1], data[1:]:
                case b"", _:
                    return
                case b"s", pid:
                    self.spares.add(int(pid))
                case b"w", text:
                    logger.warning("%s", text.decode("utf-8", "replace"))
                case b"i", text:
                    logger.info("%s", text.decode("utf-8", "replace"))


async def _cancel_after(process: ChildProcess, scope: trio.CancelScope) -> None:
    await process.wait()
    scope.cancel()


async def _send(control: trio.socket.SocketType, descriptors: Sequence[int]) -> None:
    """Send one packet with *descriptors*; a cancellation sends all of it or nothing."""
    data = b"".join(d.to_bytes(4, sys.byteorder) for d in descriptors)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, data)]
    await control.sendmsg([b"f"], rights)


@asynccontextmanager
async def open_forker(
    plan: ForkServerPlan, started: Started | None = None, *, is_lazy: bool = False
) -> AsyncIterator[Forker]:
    """Have a fork server for the length of the block.

    Its children are not touched at the end: whoever asked for them stops them.

    Args:
        started: The first server, where it was started already.
        is_lazy: Whether a server is started only when a child is first asked for.
    """
    forker = Forker(plan, started)
    if not is_lazy:
        forker._is_wanted.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(forker._keep)
        yield forker
        nursery.cancel_scope.cancel()
