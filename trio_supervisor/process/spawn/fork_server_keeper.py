"""Keep one fork server running, and a standby that takes over when it is killed."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import ExitStack, suppress
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.process.child import ChildProcess, describe_exit
from trio_supervisor.process.cleanup.stopping import StopPlan, stop
from trio_supervisor.process.groups import read_stat
from trio_supervisor.process.imports.declaration_wait import (
    IMPORT_TIMEOUT,
    ended_text,
    late_text,
    log_progress,
    read_file,
    shown_target,
)
from trio_supervisor.process.imports.import_report import read_report
from trio_supervisor.process.repeated_failures import RepeatedFailures
from trio_supervisor.process.shortage import shortage_of, text_of
from trio_supervisor.process.spawn.code_source import Reference
from trio_supervisor.process.spawn.fork_server_messages import (
    DisconnectedError,
    ServerMessage,
    receive_message,
    server_error,
)
from trio_supervisor.process.spawn.fork_server_protocol import (
    DECLARED,
    FAILED,
    STANDBY,
    WAKE,
    ForkServerPlan,
    StartedServer,
    kill_server,
    start_fork_server,
)
from trio_supervisor.process.spawn.generation_code import CodeLostError, GenerationCode
from trio_supervisor.process.spawn.standby_client import StandbyKeeper
from trio_supervisor.process.threads import run_in_thread
from trio_supervisor.tasks import ProtectedNursery, open_nursery

logger = logging.getLogger(__name__)

STOP: Final = StopPlan(timeout=2.0)
# Time for the exit handlers of the import, before a signal interrupts them [s].
_EXIT_HANDLERS: Final = 1.0
# For the last messages of an exited server. Not until EOF: a process that its import
# has forked may hold the connection open [s].
_FINAL_READ: Final = 0.1
# The first replacement is immediate; one that exits at once is retried more slowly.
_RETRIES: Final = (0.0, 0.1, 0.5, 2.0, 5.0)
# Interval at which changed files are checked again [s].
_FILES_INTERVAL: Final = 1.0


@define(eq=False)
class ForkServerKeeper:
    """The current fork server of a generation; restarts it until cancelled."""

    _plan: ForkServerPlan
    _started: StartedServer | None
    _nursery: ProtectedNursery
    _code: GenerationCode
    _is_wanted: trio.Event = field(factory=trio.Event, init=False)
    """Set when a server is needed."""
    control: trio.socket.SocketType | None = field(default=None, init=False)
    """Requests go here; None: no server at the moment."""
    _changed: trio.lowlevel.ParkingLot = field(
        factory=trio.lowlevel.ParkingLot, init=False
    )
    """Tasks that wait for a server."""
    sending: trio.Lock = field(factory=trio.Lock, init=False)
    """Held while a packet is sent."""
    failures: int = field(default=0, init=False)
    """Servers in a row that exited without forking a child."""
    _trouble: RepeatedFailures = field(
        factory=lambda: RepeatedFailures(logger, "fork server running"), init=False
    )
    process_id: int | None = field(default=None, init=False)
    """Of the server; None: no server at the moment."""
    preforked: set[int] = field(factory=set, init=False)
    """Preforked children, waiting or used; their zombies have to be reaped."""
    standby: StandbyKeeper = field(init=False)
    _report: str | None = field(default=None, init=False)
    """Report of an import that terminated its server; None: no such import."""
    problem: str = field(default="", init=False)
    """Why no server can be started before a reload; empty: one can."""

    def __attrs_post_init__(self) -> None:
        self.standby = StandbyKeeper(self._nursery, self._request_standby)

    def want(self) -> None:
        """Start a server, unless one is running or being started."""
        self._is_wanted.set()

    async def wait_server(self) -> trio.socket.SocketType:
        """Wait for a server; return its control socket.

        Raises:
            CodeLostError: no server can be started before a reload.
        """
        while self.control is None:
            if self.problem:
                raise CodeLostError(self.problem)
            await self._changed.park()
        return self.control

    def lose(self, control: trio.socket.SocketType) -> None:
        """Stop using the server behind *control*: it has exited."""
        if self.control is control:
            self.control = self.process_id = None

    async def keep(self) -> None:
        """Keep one server running until cancelled."""
        try:
            await self._is_wanted.wait()
            await self._keep_one()
        finally:
            if self._started is not None:  # cancelled before it was used
                kill_server(self._started)

    async def _keep_one(self) -> None:
        while True:
            try:
                process = await self._run_one()
            except CodeLostError as exc:
                self._refuse(str(exc))
                self.failures += exc.was_imported
                await trio.sleep(max(self._pause, _FILES_INTERVAL))
                continue
            except (OSError, MemoryError) as exc:
                problem = text_of(shortage_of(exc) or OSError(str(exc)))
                self._trouble.failed(f"cannot start a fork server: {problem}; retrying")
            else:
                self._log_exit(process.returncode)
                if self.standby.process_id is not None:
                    continue
            pause = self._pause
            self.failures += 1
            await trio.sleep(pause)

    @property
    def _pause(self) -> float:
        return _RETRIES[min(self.failures, len(_RETRIES) - 1)]

    def _log_exit(self, returncode: int | None) -> None:
        text = f"fork server exited ({describe_exit(returncode)})"
        if self._report is not None and returncode is not None:
            text = ended_text(self._report, self._shown_source(), returncode)
        next_step = "starting a new fork server"
        if self.standby.process_id is not None:
            next_step = "the standby takes over with the same code"
        logger.warning("%s; %s", text, next_step)

    def _offer(self, control: trio.socket.SocketType, process_id: int) -> None:
        self.control, self.process_id, self.problem = control, process_id, ""
        self._changed.unpark_all()

    def _refuse(self, problem: str) -> None:
        """Fail requests with *problem* until there is a server again."""
        if problem != self.problem:
            logger.error("%s", problem)
        self.problem = problem
        self._changed.unpark_all()

    async def _run_one(self) -> ChildProcess:
        started, self._started = self._started, None
        self._report = None
        if started is None and (standby := self.standby.take()) is not None:
            return await self._run_standby(*standby)
        has_code = started is not None or not self._code.is_known
        if started is None:
            await self._code.check_files()
            started = await run_in_thread(start_fork_server, self._plan)
        self._trouble.worked()
        with ExitStack() as stack:
            stack.callback(os.close, started.report)
            process = ChildProcess(started.process_id)
            control = trio.socket.from_stdlib_socket(started.control)
            try:
                if has_code:
                    # It queues requests while it imports, and answers them after that.
                    self._offer(control, process.pid)
                else:
                    await self._await_code(control, process, started.report)
                await self._serve(control, process)
            finally:
                await self._end_server(control, process)
        return process

    async def _run_standby(
        self, process: ChildProcess, taken: socket.socket
    ) -> ChildProcess:
        control = trio.socket.from_stdlib_socket(taken)
        try:
            with suppress(OSError):  # it was killed as well
                await control.send(WAKE)
            self._offer(control, process.pid)
            await self._serve(control, process)
        finally:
            await self._end_server(control, process)
        return process

    async def _serve(
        self, control: trio.socket.SocketType, process: ChildProcess
    ) -> None:
        """Receive messages until the server has exited or closed its connection."""
        async with open_nursery() as nursery:
            # A process that the import has forked may hold the connection open.
            nursery.start_soon(_cancel_after, process, nursery.cancel_scope)
            await self._listen(control, process)
            nursery.cancel_scope.cancel()

    async def _end_server(
        self, control: trio.socket.SocketType, process: ChildProcess
    ) -> None:
        self.lose(control)
        with trio.CancelScope(shield=True), control:
            # End-of-file makes it run the exit handlers of the import and exit.
            with suppress(OSError):
                control.shutdown(socket.SHUT_WR)
            with trio.move_on_after(_EXIT_HANDLERS):
                await process.wait()
            await stop(process, STOP)
            # It may have forked a standby in between, which has to be taken or stopped.
            with trio.move_on_after(_FINAL_READ):
                await self._listen(control, process)
        self.lose(control)
        process.close()
        self.preforked.clear()

    async def _await_code(
        self, control: trio.socket.SocketType, process: ChildProcess, report: int
    ) -> None:
        """Wait for the import of a restarted server; offer it if the code is the same.

        Raises:
            CodeLostError: the code differs, or the import failed.
        """
        problem: CodeLostError | None = None
        is_imported = False
        shown = self._shown_source()
        async with open_nursery() as nursery:
            nursery.start_soon(_cancel_after, process, nursery.cancel_scope)
            nursery.start_soon(log_progress, process.pid, report, shown)
            with (
                trio.move_on_after(IMPORT_TIMEOUT) as scope,
                suppress(DisconnectedError),
            ):
                try:
                    while not await self._receive(control, process):
                        pass
                    is_imported = True
                except CodeLostError as exc:
                    problem = exc
            nursery.cancel_scope.cancel()
        if scope.cancelled_caught:
            text = late_text(read_report(report), shown, IMPORT_TIMEOUT)
            problem = CodeLostError(text)
        if problem is not None:
            raise problem
        if not is_imported:
            self._report = read_report(report)

    async def _listen(
        self, control: trio.socket.SocketType, process: ChildProcess
    ) -> None:
        """Handle messages of the server until its connection closes."""
        with suppress(DisconnectedError, CodeLostError):  # other code ends it, too
            while True:
                await self._receive(control, process)

    async def _receive(
        self, control: trio.socket.SocketType, process: ChildProcess
    ) -> bool:
        """Handle one message; return whether it was the declaration."""
        message = await receive_message(control)
        try:
            return self._handle(message, control, process)
        finally:
            message.close()

    def _handle(
        self,
        message: ServerMessage,
        control: trio.socket.SocketType,
        process: ChildProcess,
    ) -> bool:
        kind, data, descriptors = message
        match kind:
            case b"s":
                self._note_preforked(int(data))
            case b"w":
                logger.warning("%s", data.decode("utf-8", "replace"))
            case b"i":
                logger.info("%s", data.decode("utf-8", "replace"))
            case _ if kind == FAILED:
                logger.warning("fork server failed: %s", text_of(server_error(data)))
            case _ if kind == STANDBY:
                try:
                    self.standby.adopt(int(data), os.dup(descriptors[0]))
                except (IndexError, OSError):  # no descriptor left for it
                    self.standby.request_later()
            case _ if kind == DECLARED and descriptors:
                self._code.check_answer(read_file(descriptors[0]), self._shown_source())
                self._offer(control, process.pid)
                return True
        return False

    def _shown_source(self) -> str:
        for source in self._plan.plan.argument or ():
            if isinstance(source, Reference):
                return shown_target(source.target)
        return "the application"

    def _note_preforked(self, pid: int) -> None:
        # It may have become a worker already, which leads its own group.
        if (found := read_stat(pid)) is not None and found.group == self.process_id:
            self.preforked.add(pid)

    async def _request_standby(self) -> None:
        with suppress(OSError):  # the server has exited, too
            async with self.sending:
                if self.control is not None:  # not so before the lock was free
                    await self.control.send(STANDBY)


async def _cancel_after(process: ChildProcess, scope: trio.CancelScope) -> None:
    await process.wait()
    scope.cancel()
