"""Run a target in the main thread: under trio, under asyncio, or as a plain call."""

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
from trio_supervisor.worker.loop_calls import Arguments, LoopCaller, Soon, soon_here


def _without_cancellation(exc: BaseException) -> BaseException | None:
    """Return *exc* without cancellations, which trio's nurseries wrap in groups."""
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(exc, BaseExceptionGroup):
        _, rest = exc.split(cancelled)
        return rest
    return None if isinstance(exc, cancelled) else exc


def do_nothing() -> None:
    """Do nothing before the target."""


class Runtime(Protocol):
    """Runs one target once."""

    def run(self, before_target: Callable[[], None] = do_nothing) -> None:
        """Call *before_target*, then run the target; raise its exceptions."""
        ...

    def handle_signal(self) -> None:
        """Handle a stop signal in the main thread. May raise SystemExit."""
        ...

    def stop(self, is_forced: bool) -> None:
        """Stop the target; called in the agent's thread."""
        ...

    async def call(self, function: Callable[..., Any], arguments: Arguments) -> Any:
        """Call *function* concurrently with the target; called in the agent's loop.

        Its exceptions are raised. A cancellation cancels it, if it is async.
        """
        ...


@define(eq=False)
class AsyncRuntime:
    """Runs an async target under trio or asyncio, by anyio."""

    _boot: WorkerBoot
    _worker_of: Callable[[], Worker]
    _notifier: Notifier
    _target: Callable[[Worker], Awaitable[object]]
    _backend: str
    _on_loop: Callable[[MainLoop], None]
    _loop_caller: LoopCaller | None = field(default=None, init=False)
    _scope: anyio.CancelScope | None = field(default=None, init=False)
    _worker: Worker | None = field(default=None, init=False)
    _soon: Soon | None = field(default=None, init=False)
    _is_stopped: bool = field(default=False, init=False)
    _error: BaseException | None = field(default=None, init=False)

    def run(self, before_target: Callable[[], None] = do_nothing) -> None:
        """Run the target in its event loop, with heartbeats from a task beside it."""
        if self._backend == "trio":
            # anyio.run() costs every worker 1 ms more.
            trio.run(self._main, before_target)
        else:
            anyio.run(self._main, before_target, backend=self._backend)
        if self._error is not None:
            raise self._error

    def handle_signal(self) -> None:
        """Stop the target. Both loops accept callbacks from a signal handler."""
        self.stop(False)

    def stop(self, is_forced: bool) -> None:
        """Set ``stopping``; cancel a target that never checks it, or if forced."""
        # Set before `_soon` is read, while `_main` sets that before it reads this: one
        # of the two sees the other. No lock: a signal handler could deadlock on it.
        self._is_stopped = True
        if (soon := self._soon) is not None:
            # RuntimeError includes trio.RunFinishedError: the loop has ended.
            with suppress(RuntimeError):
                soon(self._force if is_forced else self._stop)

    async def _main(self, before_target: Callable[[], None] = do_nothing) -> None:
        self._worker = worker = self._worker_of()
        self._on_loop(current_main_loop())
        async with anyio.create_task_group() as group:
            group.start_soon(self._beat)
            with anyio.CancelScope() as self._scope:
                soon = self._soon = soon_here()
                loop_caller = self._loop_caller = LoopCaller(group, soon)
                if self._is_stopped:
                    self._stop()
                before_target()
                try:
                    await self._awaitable(worker)
                except BaseException as exc:
                    # Raised outside of the task group, which would wrap it in a group.
                    self._error = _without_cancellation(exc)
                    if self._error is None:
                        raise
            loop_caller.close()
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
        """Call *function* in a task of the main loop."""
        if self._loop_caller is None:
            raise UnavailableError("the main loop is not running yet")
        return await self._loop_caller.call(function, arguments)

    async def _beat(self) -> None:
        while (interval := self._boot.heartbeat) is not None:
            self._notifier.beat_every(interval)
            await anyio.sleep(interval)

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
    """Runs a blocking target."""

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
        """Raise SystemExit in a target that never checks ``stopping``."""
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
        """Call *function* in another thread: the target occupies the main one."""
        return await trio.to_thread.run_sync(
            partial(function, **arguments), abandon_on_cancel=True
        )

    def _end(self) -> None:
        if self._is_running:
            self._is_running = False  # once: a second one could interrupt its cleanup
            raise SystemExit(0)
        return
