"""The controller's side of the fork server: keep one alive, and let it fork."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, Final

import trio
from attrs import define, field

from trio_supervisor.errors import SupervisorError
from trio_supervisor.process.child import ChildProcess, describe_exit
from trio_supervisor.process.cleanup.stopping import StopPlan, stop
from trio_supervisor.process.code.code_files import changed_file, differing_file
from trio_supervisor.process.groups import read_stat
from trio_supervisor.process.imports.declaration import read_answer
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
from trio_supervisor.process.spawn.code_source import Reference, shown_path
from trio_supervisor.process.spawn.documents import open_document
from trio_supervisor.process.spawn.fork_server_protocol import (
    DECLARED,
    FAILED,
    STANDBY,
    WAKE,
    ForkServerPlan,
    ForkSpec,
    StartedServer,
    kill_server,
    start_fork_server,
)
from trio_supervisor.process.spawn.standby_client import StandbyServer
from trio_supervisor.process.threads import run_in_thread
from trio_supervisor.tasks import Nursery, open_nursery

logger = logging.getLogger(__name__)

# After so many the application itself is likely to end its process when imported.
_MAX_FAILURES: Final = 3
# A spare child may be killed just when it is needed; hardly three in a row.
_MAX_ATTEMPTS: Final = 3
_STOP: Final = StopPlan(timeout=2.0)
# A signal would end it in the middle of these [s].
_EXIT_HANDLERS: Final = 1.0
# Until another twin is made for one that could not be taken [s].
_STANDBY_RETRY: Final = 5.0
# It has ended; a process that its import has forked may keep the connection [s].
_LAST_WORDS: Final = 0.1
# The first replacement is immediate; one that dies at once is tried again more slowly.
_RETRIES: Final = (0.0, 0.1, 0.5, 2.0, 5.0)
# How often the files are looked at while they are not those of the generation [s].
_LOOK_AGAIN: Final = 1.0
_MAX_PACKET: Final = 8192


class CodeLostError(OSError):
    """No process has the code of this generation any more, and its files differ."""

    was_imported = True
    """Whether it took an import to know it."""


@define(eq=False)
class ForkClient:
    """Forks children; made by `open_fork_client`."""

    _plan: ForkServerPlan
    _started: StartedServer | None
    _nursery: Nursery
    _code: Mapping[str, str] | None
    """The files of the generation's code: see `code_files`; None: not known yet."""
    _is_wanted: trio.Event = field(factory=trio.Event)
    """Set when there is to be a server."""
    _control: trio.socket.SocketType | None = field(default=None, init=False)
    _is_there: trio.Event = field(factory=trio.Event, init=False)
    _sending: trio.Lock = field(factory=trio.Lock, init=False)
    _failures: int = field(default=0, init=False)
    """Servers in a row that ended without a child."""
    _trouble: RepeatedFailures = field(
        factory=lambda: RepeatedFailures(logger, "there is a fork server"), init=False
    )
    process_id: int | None = field(default=None, init=False)
    """Of the server; None: there is none at the moment."""
    forks_in_progress: int = field(default=0, init=False)
    """Children that are being forked at the moment."""
    preforked: set[int] = field(factory=set, init=False)
    """Children of ours that are parked, or were; their zombies are to be reaped."""
    _standby: StandbyServer | None = field(default=None, init=False)
    _where: str | None = field(default=None, init=False)
    """What the report says of an import that has ended its server; None: none has."""
    problem: str = field(default="", init=False)
    """Why there is no server, and can be none before a reload; empty: there can."""

    @property
    def standby_id(self) -> int | None:
        """The process that takes over when the server is lost; None: there is none."""
        return None if self._standby is None else self._standby.process.pid

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
            CodeLostError: server and twin were lost, and the files have changed.
            OSError: the system does not let the server fork, or the server ends again
                and again.
        """
        birth = ForkSpec(
            entry,
            dict(environment),
            title,
            boot,
            has_streams=streams is not None,
            runs_application=runs_application,
        )
        descriptors = [*(streams or ()), *descriptors]
        self._is_wanted.set()
        self.forks_in_progress += 1
        try:
            return await self._fork(birth, descriptors)
        finally:
            self.forks_in_progress -= 1

    async def _fork(self, birth: ForkSpec, descriptors: Sequence[int]) -> ChildProcess:
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
                except OSError as exc:
                    if shortage_of(exc) is not None:  # ours: the server is well
                        raise
                    self._lose(control)  # it has ended, before that was noticed
                    # Or has it? One that is lost and lives on would be waited for.
                    with suppress(OSError):
                        control.shutdown(socket.SHUT_RDWR)
                    await trio.lowlevel.checkpoint()
                    return None
            try:
                answer = await ours.recv(4096)
            except OSError:
                return None
            if answer.startswith(b"!"):
                raise _refusal(answer[1:])
            if not answer:
                return None
            # It waits for our word, so that its number is its own until then. As long
            # as nobody waits for it, it stays in the server's group, and is reaped
            # with that.
            process = ChildProcess(int(answer))
            with suppress(OSError):
                os.setpgid(process.pid, process.pid)
            self.preforked.discard(process.pid)
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
            if self.problem:
                raise CodeLostError(self.problem)
            await self._is_there.wait()
        return self._control

    def _offer(self, control: trio.socket.SocketType, process_id: int) -> None:
        self._control, self.process_id, self.problem = control, process_id, ""
        self._is_there.set()

    def _refuse(self, problem: str) -> None:
        """Have requests fail with *problem* until there is a server again."""
        if problem != self.problem:
            logger.error("%s", problem)
        self.problem = problem
        waiting, self._is_there = self._is_there, trio.Event()
        waiting.set()

    def _lose(self, control: trio.socket.SocketType) -> None:
        if self._control is control:
            self._control = self.process_id = None
            self._is_there = trio.Event()

    async def _keep(self) -> None:
        """Keep one server alive until cancelled."""
        try:
            await self._is_wanted.wait()
            await self._keep_one()
        finally:
            if self._started is not None:  # cancelled before it was of use
                kill_server(self._started)

    async def _keep_one(self) -> None:
        while True:
            try:
                process = await self._run_one()
            except CodeLostError as exc:
                self._refuse(str(exc))
                self._failures += exc.was_imported
                pause = _RETRIES[min(self._failures, len(_RETRIES) - 1)]
                await trio.sleep(max(pause, _LOOK_AGAIN))
                continue
            except (OSError, MemoryError) as exc:
                problem = text_of(shortage_of(exc) or OSError(str(exc)))
                self._trouble.failed(f"no fork server: {problem}; trying again")
            else:
                text = f"the fork server ended ({describe_exit(process.returncode)})"
                if self._where is not None and process.returncode is not None:
                    shown = self._shown_source()
                    text = ended_text(self._where, shown, process.returncode)
                next_ = "starting another"
                if self._standby is not None:
                    next_ = "its twin takes over, with the same code"
                logger.warning("%s; %s", text, next_)
                if self._standby is not None:
                    continue
            pause = _RETRIES[min(self._failures, len(_RETRIES) - 1)]
            self._failures += 1
            await trio.sleep(pause)

    async def _run_one(self) -> ChildProcess:
        with ExitStack() as stack:
            started, self._started = self._started, None
            self._where = None
            report: int | None = None
            has_code = True
            if started is None and self._standby is not None:
                process, taken = self._standby.take()
                self._standby = None
                control = trio.socket.from_stdlib_socket(taken)
            else:
                if started is None:
                    has_code = self._code is None
                    await self._check_files()
                    started = await run_in_thread(start_fork_server, self._plan)
                self._trouble.worked()
                report = started.report
                stack.callback(os.close, report)
                process = ChildProcess(started.process_id)
                control = trio.socket.from_stdlib_socket(started.control)
            try:
                if report is None:
                    with suppress(OSError):  # it was killed as well
                        await control.send(WAKE)
                if has_code:
                    # It takes requests while it still imports, and answers them after.
                    self._offer(control, process.pid)
                elif report is not None:
                    await self._await_code(control, process, report)
                async with open_nursery() as nursery:
                    # A process that the import has forked may keep the connection.
                    nursery.start_soon(_cancel_after, process, nursery.cancel_scope)
                    await self._listen(control, process)
                    nursery.cancel_scope.cancel()
            finally:
                self._lose(control)
                await self._end_server(control, process)
                self.preforked.clear()
        return process

    async def _end_server(
        self, control: trio.socket.SocketType, process: ChildProcess
    ) -> None:
        with trio.CancelScope(shield=True), control:
            # It ends by that, and runs the exit handlers of the import.
            with suppress(OSError):
                control.shutdown(socket.SHUT_WR)
            with trio.move_on_after(_EXIT_HANDLERS):
                await process.wait()
            await stop(process, _STOP)
            # It may have forked a twin meanwhile, which is ours to take or to end.
            with trio.move_on_after(_LAST_WORDS):
                await self._listen(control, process)
        self._lose(control)
        process.close()

    async def _check_files(self) -> None:
        """See that what would be imported now is the code of this generation.

        Raises:
            CodeLostError: it is not.
        """
        if self._code is None:
            return
        path = await run_in_thread(changed_file, self._code)
        if path is not None:
            error = CodeLostError(_changed_text(path))
            error.was_imported = False
            raise error

    async def _await_code(
        self, control: trio.socket.SocketType, process: ChildProcess, report: int
    ) -> None:
        """Let a server that imports again be asked only if it has the same code.

        Raises:
            CodeLostError: it has not, or its import fails.
        """
        problem: CodeLostError | None = None
        is_imported = False
        shown = self._shown_source()
        async with open_nursery() as nursery:
            nursery.start_soon(_cancel_after, process, nursery.cancel_scope)
            nursery.start_soon(log_progress, process.pid, report, shown)
            with trio.move_on_after(IMPORT_TIMEOUT) as scope, suppress(_GoneError):
                try:
                    while not await self._hear(control, process):
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
            self._where = read_report(report)

    async def _listen(
        self, control: trio.socket.SocketType, process: ChildProcess
    ) -> None:
        """Hear what the server has to say, until it is gone."""
        with suppress(_GoneError, CodeLostError):  # it is ended for that, too
            while True:
                await self._hear(control, process)

    async def _hear(
        self, control: trio.socket.SocketType, process: ChildProcess
    ) -> bool:
        """Take one message; return whether it was about the code."""
        try:
            data, ancillary, _, _ = await control.recvmsg(
                _MAX_PACKET, socket.CMSG_SPACE(4)
            )
        except OSError:
            raise _GoneError from None
        with ExitStack() as stack:
            descriptors = _descriptors_in(ancillary)
            for descriptor in descriptors:
                stack.callback(os.close, descriptor)
            match data[:1], data[1:]:
                case b"", _:
                    raise _GoneError
                case b"s", pid:
                    self._note_preforked(int(pid))
                case b"w", text:
                    logger.warning("%s", text.decode("utf-8", "replace"))
                case b"i", text:
                    logger.info("%s", text.decode("utf-8", "replace"))
                case kind, text if kind == FAILED:
                    problem = _refusal(text)
                    logger.warning("the fork server ends: %s", text_of(problem))
                case kind, pid if kind == STANDBY:
                    try:
                        self._adopt_standby(int(pid), os.dup(descriptors[0]))
                    except (IndexError, OSError):  # no descriptor is left for it
                        self._nursery.start_soon(self._request_standby_later)
                case kind, _ if kind == DECLARED and descriptors:
                    self._take_code(read_file(descriptors[0]))
                    self._offer(control, process.pid)
                    return True
        return False

    def _take_code(self, answer: bytes) -> None:
        """Take in what a server has imported.

        Raises:
            CodeLostError: it is not the code of this generation.
        """
        if self._code is None:
            with suppress(SupervisorError):  # its children say what is wrong
                self._code = read_answer(answer, self._shown_source()).files
            return
        try:
            files = read_answer(answer, self._shown_source()).files or {}
        except SupervisorError as exc:
            raise CodeLostError(f"the code cannot be imported again: {exc}") from None
        if (path := differing_file(self._code, files)) is not None:
            raise CodeLostError(_changed_text(path))
        self._code = {**self._code, **files}

    def _shown_source(self) -> str:
        for source in self._plan.plan.argument or ():
            if isinstance(source, Reference):
                return shown_target(source.target)
        return "the application"

    def _note_preforked(self, pid: int) -> None:
        # It may have become a child already.
        if (found := read_stat(pid)) is not None and found.group == self.process_id:
            self.preforked.add(pid)

    def _adopt_standby(self, process_id: int, control: int) -> None:
        ours = socket.socket(fileno=control)
        ours.setblocking(False)
        twin = StandbyServer(ChildProcess(process_id), ours)
        self._standby, before = twin, self._standby
        if before is not None:
            before.dismiss()
        self._nursery.start_soon(self._watch_standby, twin)

    async def _request_standby_later(self) -> None:
        """Have the server make another twin later: the last one could not be taken."""
        await trio.sleep(_STANDBY_RETRY)
        if self._control is not None and self._standby is None:
            with suppress(OSError):  # it has ended, too
                async with self._sending:
                    await self._control.send(STANDBY)

    async def _watch_standby(self, twin: StandbyServer) -> None:
        is_lost = await twin.wait_lost()
        if is_lost and self._standby is twin:
            self._standby = None
            if self._control is not None:
                with suppress(OSError):  # it has ended, too
                    async with self._sending:
                        await self._control.send(STANDBY)


class _GoneError(Exception):
    """The connection to a server has ended."""


def _changed_text(path: str) -> str:
    return (
        f"{shown_path(path)} has changed since this generation was imported, and no "
        f"fork server has its code any more; reload to start the new code"
    )


def _descriptors_in(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with a message."""
    found: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            whole = len(data) - len(data) % 4
            found += [
                int.from_bytes(data[i : i + 4], sys.byteorder)
                for i in range(0, whole, 4)
            ]
    return found


def _refusal(answer: bytes) -> OSError:
    """Return what the server says that keeps it from forking: an errno, and words."""
    number, _, text = answer.decode("utf-8", "replace").partition(" ")
    return OSError(int(number), text) if number.isdecimal() else OSError(text)


async def _cancel_after(process: ChildProcess, scope: trio.CancelScope) -> None:
    await process.wait()
    scope.cancel()


async def _send(control: trio.socket.SocketType, descriptors: Sequence[int]) -> None:
    """Send one packet with *descriptors*; a cancellation sends all of it or nothing."""
    data = b"".join(d.to_bytes(4, sys.byteorder) for d in descriptors)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, data)]
    await control.sendmsg([b"f"], rights)


@asynccontextmanager
async def open_fork_client(
    plan: ForkServerPlan,
    started: StartedServer | None = None,
    *,
    is_lazy: bool = False,
    code: Mapping[str, str] | None = None,
) -> AsyncIterator[ForkClient]:
    """Have a fork server for the length of the block.

    Its children are not touched at the end: whoever asked for them stops them.

    Args:
        started: The first server, where it was started already.
        is_lazy: Whether a server is started only when a child is first asked for.
        code: The files of the code that its children are to run: see `code_files`.
    """
    async with open_nursery() as nursery:
        fork_client = ForkClient(plan, started, nursery, code)
        if not is_lazy:
            fork_client._is_wanted.set()
        nursery.start_soon(fork_client._keep)
        yield fork_client
        nursery.cancel_scope.cancel()
