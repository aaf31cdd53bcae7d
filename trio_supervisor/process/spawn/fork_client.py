"""Fork children from a fork server. The controller's side."""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import trio
from attrs import define, field

from trio_supervisor.process.child import ChildProcess
from trio_supervisor.process.cleanup.stopping import stop
from trio_supervisor.process.shortage import shortage_of
from trio_supervisor.process.spawn.documents import open_document
from trio_supervisor.process.spawn.fork_server_keeper import STOP, ForkServerKeeper
from trio_supervisor.process.spawn.fork_server_messages import (
    send_request,
    server_error,
)
from trio_supervisor.process.spawn.fork_server_protocol import (
    ForkServerPlan,
    ForkSpec,
    StartedServer,
)
from trio_supervisor.process.spawn.generation_code import GenerationCode
from trio_supervisor.tasks import open_nursery

logger = logging.getLogger(__name__)

# After this many servers in a row, the application itself likely ends its process.
_MAX_FAILURES: Final = 3
# A preforked child may be killed just when it is needed; hardly three in a row.
_MAX_ATTEMPTS: Final = 3


@define(eq=False)
class ForkClient:
    """Forks children; made by `open_fork_client`."""

    _keeper: ForkServerKeeper
    forks_in_progress: int = field(default=0, init=False)
    """Number of children that are being forked at the moment."""

    @property
    def process_id(self) -> int | None:
        """Of the fork server; None: no server at the moment."""
        return self._keeper.process_id

    @property
    def standby_id(self) -> int | None:
        """Process that takes over when the server is lost; None: no standby."""
        return self._keeper.standby.process_id

    @property
    def preforked(self) -> set[int]:
        """Preforked children, waiting or used; their zombies have to be reaped."""
        return self._keeper.preforked

    @property
    def problem(self) -> str:
        """Why no server can be started before a reload; empty: one can."""
        return self._keeper.problem

    async def fork(
        self,
        entry: str,
        boot: Any,
        *,
        environment: Mapping[str, str],
        title: str,
        descriptors: Sequence[int],
        stdin: int | None = None,
        streams: tuple[int, int] | None = None,
        runs_application: bool = True,
        prepare: Callable[[int], bytes | None] | None = None,
        own: str = "",
    ) -> ChildProcess:
        """Fork a child, and return its process, which the caller has to stop.

        If the server dies in between, the request is repeated to its replacement; the
        child is started exactly once. A cancellation leaves no child behind: a child
        that gets no confirmation exits.

        Args:
            entry: ``module:function`` that the child calls with *boot* and its copies
                of *descriptors*.
            stdin: Its standard input; None: that of the server, /dev/null.
            streams: Its standard output and error; None: those of the server.
            runs_application: Whether the changes of the import (signals, limits …)
                apply to it.
            prepare: Called with the process id before the child calls *entry*. May
                return pickled `ProcessAttributes` that the child has to set itself.
            own: What the child sets itself: see `exec_wrapper.take_settings`.

        Raises:
            CodeLostError: server and standby were lost, and the files have changed.
            OSError: the system refuses the fork, or the server keeps exiting.
        """
        spec = ForkSpec(
            entry,
            dict(environment),
            title,
            boot,
            has_streams=streams is not None,
            has_stdin=stdin is not None,
            runs_application=runs_application,
            own=own,
        )
        first = [] if stdin is None else [stdin]
        descriptors = [*first, *(streams or ()), *descriptors]
        self._keeper.want()
        self.forks_in_progress += 1
        try:
            return await self._fork(spec, descriptors, prepare or _do_nothing)
        finally:
            self.forks_in_progress -= 1

    async def _fork(
        self,
        spec: ForkSpec,
        descriptors: Sequence[int],
        prepare: Callable[[int], bytes | None],
    ) -> ChildProcess:
        keeper = self._keeper
        with open_document(pickle.dumps(spec)) as document:
            attempts, last = 0, None
            while attempts < _MAX_ATTEMPTS:
                control = await keeper.wait_server()
                attempts, last = (attempts if control is last else 0), control
                request = [document, *descriptors]
                process = await self._request(control, request, prepare)
                if process is not None:
                    return process
                if control is keeper.control:
                    attempts += 1  # the child was killed, or the server just exited
                elif keeper.failures >= _MAX_FAILURES:
                    raise OSError(
                        f"fork server exited {keeper.failures} times in a row before "
                        f"it forked a child"
                    )
            raise OSError(f"{_MAX_ATTEMPTS} forked children died before they started")

    async def _request(
        self,
        control: trio.socket.SocketType,
        descriptors: Sequence[int],
        prepare: Callable[[int], bytes | None],
    ) -> ChildProcess | None:
        """Request one child; None: server or child died before it was started."""
        ours, theirs = trio.socket.socketpair()
        with ours:
            with theirs:
                if not await self._send(control, descriptors, theirs.fileno()):
                    return None
            try:
                answer = await ours.recv(4096)
            except OSError:
                return None
            if answer.startswith(b"!"):
                raise server_error(answer[1:])
            return await self._confirm(ours, int(answer), prepare) if answer else None

    async def _send(
        self, control: trio.socket.SocketType, descriptors: Sequence[int], reply: int
    ) -> bool:
        """Send a request; return False if the server has exited."""
        document, *others = descriptors
        try:
            async with self._keeper.sending:  # sendmsg may wait, in one task at a time
                await send_request(control, [document, reply, *others])
        except OSError as exc:
            if shortage_of(exc) is not None:  # of this process; the server is fine
                raise
            self._keeper.lose(control)  # it has exited, which was not noticed yet
            # In case it has not: a server that is lost and lives on would be awaited.
            with suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)
            await trio.lowlevel.checkpoint()
            return False
        return True

    async def _confirm(
        self,
        reply: trio.socket.SocketType,
        process_id: int,
        prepare: Callable[[int], bytes | None],
    ) -> ChildProcess:
        """Let the forked child start; return its process."""
        # The child waits for the confirmation, so its number is not reused until then.
        # Until the new group is set it belongs to the server's, and is reaped with it.
        process = ChildProcess(process_id)
        with suppress(OSError):
            os.setpgid(process.pid, process.pid)
        self._keeper.preforked.discard(process.pid)
        self._keeper.failures = 0
        try:
            rest = prepare(process.pid)
            try:
                await reply.send(b"g" + (rest or b""))
            except OSError:
                logger.debug("a forked child exited before it started")
        except BaseException:
            with trio.CancelScope(shield=True):
                await stop(process, STOP)
            process.close()
            raise
        return process


def _do_nothing(_process_id: int) -> None:
    pass


@asynccontextmanager
async def open_fork_client(
    plan: ForkServerPlan,
    started: StartedServer | None = None,
    *,
    is_lazy: bool = False,
    code: Mapping[str, str] | None = None,
) -> AsyncIterator[ForkClient]:
    """Keep a fork server running within the block.

    Its children are not stopped at the end: the callers of `ForkClient.fork` do that.

    Args:
        started: The first server, if it was started already.
        is_lazy: Whether to start a server only for the first child.
        code: The files of the code that its children have to run: see `code_files`.
    """
    async with open_nursery() as nursery:
        keeper = ForkServerKeeper(plan, started, nursery, GenerationCode(code))
        if not is_lazy:
            keeper.want()
        nursery.start_soon(keeper.keep)
        yield ForkClient(keeper)
        nursery.cancel_scope.cancel()
