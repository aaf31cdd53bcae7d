"""Register a trio or asyncio program at a supervisor that did not start it."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import anyio
import trio
from attrs import define, field

from trio_supervisor._construction import NoPublicConstructor
from trio_supervisor.diagnostics.tasks.main_loop import current_main_loop
from trio_supervisor.errors import SocketPathError, SpecError
from trio_supervisor.process.spawn.environment import DEFAULT_SOCKET, SOCKET_VARIABLE
from trio_supervisor.tasks import interrupt_safe
from trio_supervisor.worker.diagnostics import WorkerDiagnostics
from trio_supervisor.worker.handlers import Handlers
from trio_supervisor.worker.loop_calls import LoopCaller, Soon, soon_in_a_task
from trio_supervisor.worker.operations import Operations
from trio_supervisor.worker.registration import Registration

logger = logging.getLogger(__name__)

# Operations that the block adds before it first waits exist when the program registers;
# a program that never waits registers after this time [s].
_HEAD_START: Final = 1.0
# The agent stops immediately, unless it is in C code [s].
_ENDED_WITHIN: Final = 5.0


class SupervisedWorker(metaclass=NoPublicConstructor):
    """This program, registered at a supervisor that did not start it.

    Made by `supervised_worker`.
    """

    def __init__(self, name: str, state: Mapping[str, Any], handlers: Handlers) -> None:
        self.name = name
        """Its name; ``pid-4711`` if none was given."""
        self.state: dict[str, Any] = dict(state)
        """State of the program, sent whenever it registers. JSON values."""
        self._handlers = handlers
        self._connection_id: str | None = None
        self._registered = anyio.Event()

    @property
    def connection_id(self) -> str | None:
        """The supervisor's id of the connection; None: not registered now."""
        return self._connection_id

    async def wait_registered(self) -> None:
        """Wait until this program is registered at a supervisor."""
        while self._connection_id is None:
            await self._registered.wait()

    def handle(self, name: str, function: Callable[..., Any]) -> None:
        """Register *function* as the operation *name*, for ``call WORKER NAME``.

        It is called in the event loop in which `supervised_worker` was entered, and may
        be async; see `Worker.handle`.

        Raises:
            SpecError: as for `Worker.handle`.
        """
        self._handlers.add(name, function)

    def _change(self, connection_id: str | None) -> None:
        self._connection_id = connection_id
        if connection_id is not None:
            self._registered.set()
        elif self._registered.is_set():
            self._registered = anyio.Event()

    def __repr__(self) -> str:
        return f"<SupervisedWorker {self.name}>"


@interrupt_safe
@asynccontextmanager
async def supervised_worker(
    socket: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    state: Mapping[str, Any] | None = None,
) -> AsyncIterator[SupervisedWorker]:
    """Register this program at the supervisor at *socket* during the block.

    Works under trio and asyncio, in any thread. The block is entered immediately; the
    connection is made, and made again, whenever the supervisor runs. The supervisor can
    inspect this program (``thread_dump``, ``memory_sample``, …), even while the event
    loop is blocked, and call the operations that `SupervisedWorker.handle` adds; it
    cannot restart or stop it. ::

        async with supervised_worker("supervisor.ipc", name="importer") as worker:
            worker.handle("progress", lambda: {"rows": rows})
            await import_all()

    Args:
        socket: Path of the supervisor's socket; default: ``$TRIO_SUPERVISOR_SOCKET``,
            else ``supervisor.ipc`` in the current directory.
        name: Name that ``status`` shows. It need not be unique.
        state: State of the program, sent when it registers. JSON values.

    Raises:
        SpecError: the name is not a string, or empty.
        SocketPathError: the path is relative, and the current directory was removed.
    """
    if name is not None and (not isinstance(name, str) or not name):
        raise SpecError("name", f"expected a name, got {name!r:.80}")
    path = _absolute(socket)
    worker = SupervisedWorker._create(
        name or f"pid-{os.getpid()}", state or {}, Handlers()
    )
    error: BaseException | None = None
    async with anyio.create_task_group() as group:
        soon = soon_in_a_task()
        loop_caller = LoopCaller(group, soon)
        agent = _AgentThread(
            path, name, worker, loop_caller, soon, _looking(worker.name)
        )
        agent.start()
        cancelled: BaseException | None = None
        try:
            yield worker
        except anyio.get_cancelled_exc_class() as exc:
            cancelled = exc
        except BaseException as exc:
            # Raised outside of the task group, which would wrap it in a group.
            error = exc
        loop_caller.close()
        try:
            await agent.stop()
        except KeyboardInterrupt as exc:
            error = error or exc
        worker._change(None)
        group.cancel_scope.cancel()
        if cancelled is not None and error is None:
            raise cancelled
    if error is not None:
        raise error


def _absolute(socket: str | os.PathLike[str] | None) -> str:
    path = os.fspath(socket or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET)
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise SocketPathError(f"{path}: the current directory was removed") from None


def _looking(name: str) -> WorkerDiagnostics:
    # The name becomes a part of that of a file.
    looking = WorkerDiagnostics(re.sub(r"[^\w.-]", "_", name)[:100])
    looking.begin(current_main_loop())
    return looking


@define(eq=False)
class _AgentThread:
    """The thread that keeps the program registered; used in the program's loop."""

    _path: str
    _name: str | None
    _worker: SupervisedWorker
    _loop_caller: LoopCaller
    _soon: Soon
    _looking: WorkerDiagnostics
    _may_begin: threading.Event = field(factory=threading.Event, init=False)
    _is_over: anyio.Event = field(factory=anyio.Event, init=False)
    _is_stopped: bool = field(default=False, init=False)
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _token: trio.lowlevel.TrioToken | None = field(default=None, init=False)
    _thread: threading.Thread = field(init=False)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(
            target=self._run, name="trio_supervisor agent", daemon=True
        )
        self._thread.start()
        self._soon(self._may_begin.set)

    async def stop(self) -> None:
        """Stop the thread and wait for its end, shielded from cancellation."""
        # Set before the token is read, while `_main` sets that before it reads this.
        self._is_stopped = True
        self._may_begin.set()
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)
        try:
            with anyio.CancelScope(shield=True, deadline=_deadline()):
                await self._is_over.wait()
        finally:
            # It is ending, or asyncio does not let us wait for it.
            self._thread.join(_ENDED_WITHIN)
        if self._thread.is_alive():
            logger.warning(
                "%s: the agent's thread did not stop within %g s",
                self._worker.name,
                _ENDED_WITHIN,
            )

    def _run(self) -> None:
        # Signals are for the threads of the program.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._may_begin.wait(_HEAD_START)
        try:
            trio.run(self._main)
        except BaseException:
            logger.exception("the agent of %s failed", self._worker.name)
        finally:
            self._tell(self._is_over.set)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        operations = Operations(
            self._looking, self._worker._handlers, lambda: self._loop_caller.call
        )
        registration = Registration(
            self._path, self._worker.name, self._state, operations.dispatch, self._note
        )
        if self._is_stopped:
            return
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._looking.watch)
                nursery.start_soon(registration.run)

    def _state(self) -> dict[str, Any]:
        name = {} if self._name is None else {"name": self._name}
        return {**self._worker.state, **name, "process_id": os.getpid()}

    def _note(self, connection_id: str | None) -> None:
        self._tell(lambda: self._worker._change(connection_id))

    def _tell(self, function: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the program's loop has ended
            self._soon(function)


def _deadline() -> float:
    return anyio.current_time() + _ENDED_WITHIN
