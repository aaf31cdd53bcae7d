"""Run a service's target in a test, without a supervisor and without a process."""

from __future__ import annotations

import inspect
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Generic, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from attrs import define, field

from trio_supervisor.policy.metrics import Metrics
from trio_supervisor.process.spawn.boot import WorkerBoot
from trio_supervisor.testing.recorder import Recorder
from trio_supervisor.worker.handlers import Handlers, to_result
from trio_supervisor.worker.instance import SyncWorker, Worker

AnyWorker = TypeVar("AnyWorker", Worker, SyncWorker)

_HEARTBEAT: Final = 10.0


@define(eq=False)
class RunningWorker(Generic[AnyWorker]):
    """A target that runs in a test; made by `run_worker` or `run_sync_worker`."""

    worker: AnyWorker
    """What the target was called with."""
    is_ready: bool = field(default=False, init=False)
    """Whether the last report was ``worker.ready``, not ``worker.unready``."""
    status: str = field(default="", init=False)
    """What it has reported last by ``worker.status``, or ``worker.unready``."""
    restart_reason: str | None = field(default=None, init=False)
    """What it has passed to ``worker.request_restart`` last; None: nothing."""
    heartbeats: int = field(default=0, init=False)
    """How many heartbeats the target has given."""
    _ready: anyio.Event = field(factory=anyio.Event, init=False)

    async def wait_ready(self) -> None:
        """Wait until the worker has reported that it is ready.

        There is no timeout: put `trio.fail_after` or `anyio.fail_after` around it.
        """
        while not self.is_ready:
            await self._ready.wait()

    def stop(self) -> None:
        """Set ``worker.stopping``, as the stop signal does."""
        self.worker._stopping._set()

    async def call(self, name: str, **arguments: Any) -> Any:
        """Call an operation that the target has added by ``worker.handle``.

        Arguments are checked, and the result is made plain, as for the verb ``call``.

        Raises:
            UnknownOperationError: the target has added no operation *name*.
            BadRequestError: the arguments do not fit; the message names each.
            OperationFailedError: the result has no JSON.
        """
        handler = self.worker._handlers.find(name)
        run = partial(handler.function, **handler.bind(arguments))
        if isinstance(self.worker, SyncWorker):
            result = await anyio.to_thread.run_sync(run)
        elif inspect.isawaitable(result := run()):
            result = await result
        return to_result(name, result)["data"]

    def metric(self, name: str, **labels: str) -> float:
        """Return the number of a counter or gauge; of a histogram, how many it has."""
        series: Any = getattr(self.worker.metrics, name)
        return float((series.labels(**labels) if labels else series).value)

    def _hear(self, text: str) -> None:
        """Take in a notification, in the thread of the event loop."""
        for line in text.splitlines():
            name, _, value = line.partition("=")
            if name == "READY":
                self._set_ready(value == "1")
            elif name == "STATUS":
                self.status = value
            elif name == "RESTART":
                self.restart_reason = value
            elif name == "WATCHDOG":
                self.heartbeats += 1

    def _set_ready(self, is_ready: bool) -> None:
        self.is_ready = is_ready
        if is_ready:
            self._ready.set()
        elif self._ready.is_set():
            self._ready = anyio.Event()


@asynccontextmanager
async def run_worker(
    target: Callable[[Worker], Awaitable[object]],
    *,
    name: str = "worker.0",
    state: Mapping[str, Any] | None = None,
    sockets: Mapping[str, socket.socket] | None = None,
    incarnation: int = 1,
    generation: int = 1,
    metrics: Metrics | None = None,
) -> AsyncIterator[RunningWorker[Worker]]:
    """Run *target* as a worker for the length of the block, under trio or asyncio.

    Leaving the block stops it as a supervisor does: ``worker.stopping`` is set, and a
    target that has never used it is cancelled. What the target raises comes out of the
    block. Example::

        async def test_service_reports_ready() -> None:
            async with run_worker(serve) as running:
                with trio.fail_after(5):
                    await running.wait_ready()
                assert await running.call("cache_stats") == {"hits": 0}

    Args:
        target: The target of a `Service` with ``backend="trio"`` or ``"asyncio"``.
        name: ``worker.name``, such as ``web.0``.
        state: ``worker.state``.
        sockets: ``worker.sockets``, already bound and listening.
        incarnation: ``worker.incarnation``.
        generation: ``worker.generation``.
        metrics: Those of the service; `RunningWorker.metric` returns their numbers.
    """
    boot = _boot(name, state, incarnation, generation, metrics)
    recorder = Recorder(None)
    worker = Worker._create(boot, recorder, sockets, Handlers())
    running = RunningWorker(worker)
    error: BaseException | None = None
    recorder.on_text = running._hear
    async with anyio.create_task_group() as group:
        over = anyio.Event()
        scope = anyio.CancelScope()

        async def run() -> None:
            nonlocal error
            with scope:
                try:
                    await target(worker)
                except Exception as exc:  # raised outside of the group
                    error = exc
            over.set()

        group.start_soon(run)
        try:
            yield running
        except Exception as exc:
            error = exc
        running.stop()
        if not worker._stopping.is_noticed:
            scope.cancel()
        await over.wait()
    if error is not None:
        raise error


@asynccontextmanager
async def run_sync_worker(
    target: Callable[[SyncWorker], object],
    *,
    name: str = "worker.0",
    state: Mapping[str, Any] | None = None,
    sockets: Mapping[str, socket.socket] | None = None,
    incarnation: int = 1,
    generation: int = 1,
    metrics: Metrics | None = None,
) -> AsyncIterator[RunningWorker[SyncWorker]]:
    """Run a blocking *target* in a thread for the length of the block.

    As `run_worker`, but a target that never looks at ``worker.stopping`` cannot be
    interrupted: the block waits for it.
    """
    boot = _boot(name, state, incarnation, generation, metrics)
    recorder = Recorder(None)
    worker = SyncWorker._create(boot, recorder, sockets, Handlers())
    running = RunningWorker(worker)
    error: BaseException | None = None
    loop_thread = threading.get_ident()

    def hear(text: str) -> None:
        if threading.get_ident() == loop_thread:
            running._hear(text)
        else:
            anyio.from_thread.run_sync(running._hear, text)

    recorder.on_text = hear
    async with anyio.create_task_group() as group:
        over = anyio.Event()

        async def run() -> None:
            nonlocal error
            try:
                await anyio.to_thread.run_sync(target, worker)
            except Exception as exc:  # raised outside of the group
                error = exc
            over.set()

        group.start_soon(run)
        try:
            yield running
        except Exception as exc:
            error = exc
        running.stop()
        with anyio.CancelScope(shield=True):
            await over.wait()
    if error is not None:
        raise error


def _boot(
    name: str,
    state: Mapping[str, Any] | None,
    incarnation: int,
    generation: int,
    metrics: Metrics | None,
) -> WorkerBoot:
    return WorkerBoot.alone(
        name,
        state=dict(state or {}),
        incarnation=incarnation,
        generation=generation,
        heartbeat=_HEARTBEAT,
        metrics=metrics,
    )
