"""The argument of a target: `Worker` if it is async, `SyncWorker` if it blocks."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
from attrs import define, field

from trio_supervisor._construction import NoPublicConstructor
from trio_supervisor.policy.metrics import Metrics
from trio_supervisor.process.notify.sd_notify import Notifier
from trio_supervisor.process.shared_numbers import Numbers, local_numbers
from trio_supervisor.process.spawn.boot import WorkerBoot
from trio_supervisor.worker.handlers import Handlers
from trio_supervisor.worker.metrics import WorkerMetrics

# The controller reads its socket within milliseconds; it is full only in a flood.
_RETRY: Final = 0.01


class _Instance(metaclass=NoPublicConstructor):
    """The common part of `Worker` and `SyncWorker`."""

    def __init__(
        self,
        boot: WorkerBoot,
        notifier: Notifier,
        sockets: Mapping[str, socket.socket] | None = None,
        handlers: Handlers | None = None,
        numbers: Numbers | None = None,
    ) -> None:
        self._handlers = handlers or Handlers()
        self._boot = boot
        self._notifier = notifier
        self.sockets: Mapping[str, socket.socket] = dict(sockets or {})
        """The service's listening sockets, by name: bound, listening, and shared with
        all other workers of the service."""
        declared = boot.metrics or Metrics()
        self.metrics = WorkerMetrics(declared, numbers or local_numbers(declared.slots))
        """The metrics that the service declares, as attributes: see `Metrics`."""
        self.state: dict[str, Any] = dict(boot.state)
        """The application's state, sent whenever this worker registers. JSON values."""

    @property
    def name(self) -> str:
        """``service.index``."""
        return self._boot.name

    @property
    def service(self) -> str:
        """Name of its service."""
        return self._boot.service

    @property
    def index(self) -> int:
        """Number among the workers of its service, from 0. It never changes."""
        return self._boot.index

    @property
    def incarnation(self) -> int:
        """1 in the first process of this name, +1 on each restart."""
        return self._boot.incarnation

    @property
    def generation(self) -> int:
        """1 at first, +1 on each reload."""
        return self._boot.generation

    def handle(self, name: str, function: Callable[..., Any]) -> None:
        """Register *function* as the operation *name*, for ``call WORKER NAME``.

        It is called in this worker's event loop, concurrently with the target, and may
        be async. In a sync worker it is called in another thread and must not be async.
        Arguments are converted to their annotated types, and the result to JSON, by
        cattrs. Exceptions are sent to the client and logged, including SystemExit and
        KeyboardInterrupt: no operation stops the worker.

        Raises:
            SpecError: the name is invalid or taken, or the function's parameters are
                unknown or cannot be passed by name.
        """
        self._handlers.add(name, function)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} incarnation {self.incarnation}>"


def _unready(reason: str) -> str:
    return f"READY=0\nSTATUS={' '.join(reason.splitlines())}"


def _restart(reason: str) -> str:
    return f"RESTART={' '.join(reason.splitlines())}"


@define(eq=False)
class Stopping:
    """Set when this worker is asked to stop."""

    is_noticed: bool = field(default=False, init=False)
    """Whether the target checks it, and so is trusted to return on its own."""
    _event: anyio.Event = field(factory=anyio.Event, init=False)

    def is_set(self) -> bool:
        """Return whether the worker was asked to stop."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Wait until the worker is asked to stop."""
        await self._event.wait()

    def _set(self) -> None:
        self._event.set()


class Worker(_Instance):
    """The worker process, as its async target sees it, under trio and asyncio."""

    def __init__(
        self,
        boot: WorkerBoot,
        notifier: Notifier,
        sockets: Mapping[str, socket.socket] | None = None,
        handlers: Handlers | None = None,
        numbers: Numbers | None = None,
    ) -> None:
        super().__init__(boot, notifier, sockets, handlers, numbers)
        self._stopping = Stopping()

    @property
    def stopping(self) -> Stopping:
        """Set when the worker is asked to stop.

        A target that never reads this attribute is cancelled immediately. One that does
        is trusted to return; it is cancelled after four fifths of the service's
        ``stop_timeout``, and killed after all of it.
        """
        self._stopping.is_noticed = True
        return self._stopping

    async def ready(self) -> None:
        """Report that this worker is ready."""
        await self._send("READY=1")

    async def unready(self, reason: str = "") -> None:
        """Report that this worker is not ready; it is not restarted for that.

        Call `ready` when it is ready again.
        """
        await self._send(_unready(reason))

    async def request_restart(self, reason: str = "") -> None:
        """Request a planned restart of this worker, once it has been ready for 1 s.

        It keeps running until `stopping` is set: immediately, or, with the
        application's ``max_restarts_concurrently``, when it is its turn.
        """
        await self._send(_restart(reason))

    async def status(self, text: str) -> None:
        """Report in one line what this worker is doing; ``status`` shows it."""
        await self._send(f"STATUS={' '.join(text.splitlines())}")

    async def healthy(self) -> None:
        """Send a heartbeat, in addition to those that the event loop sends."""
        await anyio.lowlevel.checkpoint()
        self._notifier.beat()

    async def _send(self, text: str) -> None:
        await anyio.lowlevel.checkpoint()
        while not self._notifier.send(text):  # noqa: ASYNC110 (a full socket)
            await anyio.sleep(_RETRY)


@define(eq=False)
class SyncStopping:
    """Set when this worker is asked to stop. Each check also sends a heartbeat."""

    _heartbeat: Callable[[], None]
    _interval: float
    is_noticed: bool = field(default=False, init=False)
    """Whether the target checks it, and so is trusted to return on its own."""
    checks: int = field(default=0, init=False)
    """How often the target has checked it. The doctor reads it: a target that checks
    again makes progress."""
    _event: threading.Event = field(factory=threading.Event, init=False)

    def is_set(self) -> bool:
        """Return whether the worker was asked to stop."""
        self._check()
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most *timeout* [s]; return whether it is set.

        ``while not worker.stopping.wait(1): ...`` is the usual loop of a sync worker.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            self._check()
            left = self._interval if end is None else end - time.monotonic()
            if self._event.wait(max(0.0, min(left, self._interval))):
                return True
            if end is not None and time.monotonic() >= end:
                return False

    def _check(self) -> None:
        self.is_noticed = True
        self.checks += 1
        self._heartbeat()

    def _set(self) -> None:
        self._event.set()


class SyncWorker(_Instance):
    """The worker process, as its blocking target sees it.

    There is no event loop that could send heartbeats: `healthy` and each check of
    `stopping` send one, and health checks begin with the first.
    """

    def __init__(
        self,
        boot: WorkerBoot,
        notifier: Notifier,
        sockets: Mapping[str, socket.socket] | None = None,
        handlers: Handlers | None = None,
        numbers: Numbers | None = None,
    ) -> None:
        super().__init__(boot, notifier, sockets, handlers, numbers)
        self._interval = boot.heartbeat if boot.heartbeat is not None else 60.0
        self._next_heartbeat = 0.0
        self._stopping = SyncStopping(self._beat, self._interval)

    @property
    def stopping(self) -> SyncStopping:
        """Set when the worker is asked to stop.

        In a target that never reads this attribute, SystemExit is raised immediately.
        One that does is trusted to return; SystemExit is raised after four fifths of
        the service's ``stop_timeout``, and the worker is killed after all of it.
        """
        self._stopping.is_noticed = True
        return self._stopping

    def ready(self) -> None:
        """Report that this worker is ready."""
        self._send("READY=1")

    def unready(self, reason: str = "") -> None:
        """Report that this worker is not ready; it is not restarted for that.

        Call `ready` when it is ready again.
        """
        self._send(_unready(reason))

    def request_restart(self, reason: str = "") -> None:
        """Request a planned restart of this worker, once it has been ready for 1 s.

        It keeps running until `stopping` is set: immediately, or, with the
        application's ``max_restarts_concurrently``, when it is its turn.
        """
        self._send(_restart(reason))

    def status(self, text: str) -> None:
        """Report in one line what this worker is doing; ``status`` shows it."""
        self._send(f"STATUS={' '.join(text.splitlines())}")

    def healthy(self) -> None:
        """Send a heartbeat."""
        self._notifier.beat()

    def _beat(self) -> None:
        now = time.monotonic()
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + self._interval / 2
            self._notifier.beat()

    def _send(self, text: str) -> None:
        while not self._notifier.send(text):
            time.sleep(_RETRY)
