"""Run a target in the main thread: under trio, asyncio, or as a plain call."""

from __future__ import annotations

import inspect
import signal
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import anyio
import trio
from attrs import define, field

from trio_supervisor.diagnostics.tasks.main_loop import MainLoop, current_main_loop
from trio_supervisor.errors import UnavailableError
from trio_supervisor.process.notify.sd_notify import Notifier
from trio_supervisor.process.spawn.boot import WorkerBoot
from trio_supervisor.worker.instance import SyncWorker, Worker
from trio_supervisor.worker.loop_calls import Arguments, Soon, Visits, soon_here


def do_nothing() -> None:
    """What is done before a target where nothing is left to do."""


class Runtime(Protocol):
    """Runs one target, once."""

    def run(self, before_target: Callable[[], None] = do_nothing) -> None:
        """Call *before_target*, then run it to its end; raise what it raises."""
        ...

    def handle_signal(self) -> None:
        """A stop signal came, in the main thread. May raise SystemExit."""
        ...

    def stop(self, is_forced: bool) -> None:
        """Have the target end; called in the agent's thread."""
        ...

    async def call(self, function: Callable[..., Any], arguments: Arguments) -> Any:
        """Call *function* beside the target; called in the agent's loop.

        Raises what it raises. A cancellation cancels it, where it can be.
        """
        ...


@define(eq=False)
class AsyncRuntime:
    """For trio and asyncio, through anyio."""

    _boot: WorkerBoot
    _worker_of: Callable[[], Worker]
    _notifier: Notifier
    _target: Callable[[Worker], Awaitable[object]]
    _backend: str
    _on_loop: Callable[[MainLoop], None]
    _visits: Visits | None = field(default=None, init=False)
    _scope: anyio.CancelScope | None = field(default=None, init=False)
    _worker: Worker | None = field(default=None, init=False)
    _soon: Soon | None = field(default=None, init=False)
    _is_stopped: bool = field(default=False, init=False)
    _error: BaseException | None = field(default=None, init=False)

    def run(self, before_target: Callable[[], None] = do_nothing) -> None:
        """Run the target under its loop, with heartbeats beside it."""
        if self._backend == "trio":
            # anyio's own way there costs every worker 1 ms.
            trio.run(self._main, before_target)
        else:
            anyio.run(self._main, before_target, backend=self._backend)
        if self._error is not None:
            raise self._error

    def handle_signal(self) -> None:
        """Have the target end. Both loops take a call from within a signal handler."""
        self.stop(False)

    def stop(self, is_forced: bool) -> None:
        """Set ``stopping``; cancel a target that does not look at it, or if forced."""
        # Set before `_soon` is read, while `_main` sets that before it reads this: one
        # of the two sees the other. A lock could be held where a signal comes in.
        self._is_stopped = True
        if (soon := self._soon) is not None:
            # RuntimeError, trio.RunFinishedError included: it has ended already.
            with suppress(RuntimeError):
                soon(self._force if is_forced else self._stop)

    async def _main(self, before_target: Callable[[], None] = do_nothing) -> None:
        self._worker = worker = self._worker_of()
        self._on_loop(current_main_loop())
        async with anyio.create_task_group() as group:
            group.start_soon(self._beat)
            with anyio.CancelScope() as self._scope:
                soon = self._soon = soon_here()
                visits = self._visits = Visits(group, soon)
                if self._is_stopped:
                    self._stop()
                before_target()
                try:
                    await self._awaitable(worker)
                except BaseException as exc:
                    if isinstance(exc, anyio.get_cancelled_exc_class()):
                        raise
                    # Raised outside of the task group, which would wrap it.
                    self._error = exc
            visits.close()
            group.cancel_scope.cancel()

    def _awaitable(self, worker: Worker) -> Awaitable[object]:
        result = self._target(worker)
        if not inspect.isawaitable(result):
            raise TypeError(
                f"the target returned {result!r:.80}, which backend="
                f'"{self._backend}" cannot await; write "async def", or give '
                f'backend="sync"'
            )
        return result

    async def call(self, function: Callable[..., Any], arguments: Arguments) -> Any:
        """Call *function* in the main loop, in a task of its own."""
        if self._visits is None:
            raise UnavailableError("the main loop does not run yet")
        return await self._visits.call(function, arguments)

    async def _beat(self) -> None:
        while self._boot.heartbeat is not None:
            self._notifier.beat()
            await anyio.sleep(self._boot.heartbeat)

    def _stop(self) -> None:
        assert self._worker is not None
        stopping = self._worker._stopping
        stopping._set()
        if not stopping.is_noticed:
            self._force()

    def _force(self) -> None:
        assert self._scope is not None
        self._scope.cancel()


@define(eq=False)
class SyncRuntime:
    """For a blocking function."""

    _worker: SyncWorker
    _target: Callable[[SyncWorker], object]
    _is_forced: bool = field(default=False, init=False)
    _is_running: bool = field(default=False, init=False)

    def run(self, before_target: Callable[[], None] = do_nothing) -> None:
        """Call the target."""
        before_target()
        self._is_running = True
        try:
            result = self._target(self._worker)
        finally:
            self._is_running = False
        if inspect.iscoroutine(result) or inspect.isasyncgen(result):
            raise TypeError(
                f'the target returned {result!r:.80}, which backend="sync" does not '
                f'run; give backend="trio" or backend="asyncio"'
            )

    def handle_signal(self) -> None:
        """End a target that would not look at ``stopping``, where it stands."""
        if self._is_forced or not self._worker._stopping.is_noticed:
            self._end()

    def stop(self, is_forced: bool) -> None:
        """Set ``stopping``; if forced, interrupt the main thread."""
        self._worker._stopping._set()
        if is_forced or not self._worker._stopping.is_noticed:
            self._is_forced = True
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGTERM)

    async def call(self, function: Callable[..., Any], arguments: Arguments) -> Any:
        """Call *function* in a thread of its own: the main one is the target's."""
        return await trio.to_thread.run_sync(
            partial(function, **arguments), abandon_on_cancel=True
        )

    def _end(self) -> None:
        if self._is_running:
            self._is_running = False  # once: a second one could hit its clean-up
            raise SystemExit(0)
        return
