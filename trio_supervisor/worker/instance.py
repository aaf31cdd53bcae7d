"""What a target gets: `Worker` for async functions, `SyncWorker` for blocking ones."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
from attrs import define, field

from trio_supervisor._construction import NoPublicConstructor
from trio_supervisor.process.notify.sd_notify import Notifier
from trio_supervisor.process.spawn.boot import WorkerBoot
from trio_supervisor.worker.handlers import Handlers

# The controller reads its socket within milliseconds; it is full only in a storm.
_RETRY: Final = 0.01


class _Instance(metaclass=NoPublicConstructor):
    """What both have."""

    def __init__(
        self,
        boot: WorkerBoot,
        notifier: Notifier,
        sockets: Mapping[str, socket.socket] | None = None,
        handlers: Handlers | None = None,
    ) -> None:
        self._handlers = handlers or Handlers()
        self._boot = boot
        self._notifier = notifier
        self.sockets: Mapping[str, socket.socket] = dict(sockets or {})
        """The service's listening sockets, by name. They are bound, they listen, and
        they are shared with all other workers of the service."""
        self.state: dict[str, Any] = dict(boot.state)
        """The application's own: sent whenever this worker registers. JSON values."""

    @property
    def name(self) -> str:
        """``service.index``."""
        return self._boot.name

    @property
    def service(self) -> str:
        """The name of its service."""
        return self._boot.service

    @property
    def index(self) -> int:
        """Its number among the workers of its service, from 0; stable."""
        return self._boot.index

    @property
    def incarnation(self) -> int:
        """1 in the first process of this name, one more in each later one."""
        return self._boot.incarnation

    @property
    def generation(self) -> int:
        """1 at first, one more with each reload."""
        return self._boot.generation

    def handle(self, name: str, function: Callable[..., Any]) -> None:
        """Have *function* answer calls of *name*, as ``call NAME cache_stats`` makes.

        It is called in this worker's event loop, beside the target, and may be async;
        in a sync worker it is called in a thread of its own, and may not. Arguments
        get the types that it declares, and what it returns becomes JSON, both by
        cattrs. What it raises is the caller's answer, and goes to the log; so do
        SystemExit and KeyboardInterrupt: no operation ends the worker.

        Raises:
            SpecError: the name is no name, or taken; or the function cannot be called
                with arguments by name, or does not tell which it has.
        """
        self._handlers.add(name, function)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} incarnation {self.incarnation}>"


def _unready(reason: str) -> str:
    return f"READY=0\nSTATUS={' '.join(reason.splitlines())}"


@define(eq=False)
class Stopping:
    """Set when this worker is asked to end."""

    is_noticed: bool = field(default=False, init=False)
    """Whether the target has looked at it, and so will end by itself."""
    _event: anyio.Event = field(factory=anyio.Event, init=False)

    def is_set(self) -> bool:
        """Whether the worker was asked to end."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Wait until it is."""
        await self._event.wait()

    def _set(self) -> None:
        self._event.set()


class Worker(_Instance):
    """One worker process, as its async target sees it, under trio and asyncio alike."""

    def __init__(
        self,
        boot: WorkerBoot,
        notifier: Notifier,
        sockets: Mapping[str, socket.socket] | None = None,
        handlers: Handlers | None = None,
    ) -> None:
        super().__init__(boot, notifier, sockets, handlers)
        self._stopping = Stopping()

    @property
    def stopping(self) -> Stopping:
        """Set when the worker is to end.

        A target that never looks here is cancelled when it is time to end. One that
        does is trusted to return; it is cancelled after four fifths of the service's
        ``stop_timeout``, and killed at its end.
        """
        self._stopping.is_noticed = True
        return self._stopping

    async def ready(self) -> None:
        """Say that this worker does its work from now on."""
        await self._send("READY=1")

    async def unready(self, reason: str = "") -> None:
        """Say that this worker cannot work at the moment; nobody ends it for that.

        `ready` says that it can again.
        """
        await self._send(_unready(reason))

    async def status(self, text: str) -> None:
        """Say in one line what this worker is doing; shown by ``status``."""
        await self._send(f"STATUS={' '.join(text.splitlines())}")

    async def healthy(self) -> None:
        """Give a heartbeat, beside those that this worker's loop gives by itself."""
        await anyio.lowlevel.checkpoint()
        self._notifier.beat()

    async def _send(self, text: str) -> None:
        await anyio.lowlevel.checkpoint()
        while not self._notifier.send(text):  # noqa: ASYNC110 (a full socket)
            await anyio.sleep(_RETRY)


@define(eq=False)
class SyncStopping:
    """Set when this worker is asked to end. Looking at it is a heartbeat, too."""

    _heartbeat: Callable[[], None]
    _interval: float
    is_noticed: bool = field(default=False, init=False)
    """Whether the target checks it, and so is trusted to return on its own."""
    checks: int = field(default=0, init=False)
    """How often the target has checked it. The doctor reads it: a target that checks
    again makes progress."""
    _event: threading.Event = field(factory=threading.Event, init=False)

    def is_set(self) -> bool:
        """Whether the worker was asked to end."""
        self._check()
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is, or for *timeout* [s]; return whether it is.

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
    """One worker process, as its blocking target sees it.

    It has no loop that could give heartbeats: they come from `healthy` and from looking
    at `stopping`, and the health check begins with the first of them.
    """

    def __init__(
        self,
        boot: WorkerBoot,
        notifier: Notifier,
        sockets: Mapping[str, socket.socket] | None = None,
        handlers: Handlers | None = None,
    ) -> None:
        super().__init__(boot, notifier, sockets, handlers)
        self._interval = boot.heartbeat if boot.heartbeat is not None else 60.0
        self._next_heartbeat = 0.0
        self._stopping = SyncStopping(self._beat, self._interval)

    @property
    def stopping(self) -> SyncStopping:
        """Set when the worker is to end.

        A target that never looks here gets a SystemExit, wherever it is, when it is
        time to end. One that does is trusted to return; it gets one after four fifths
        of the service's ``stop_timeout``, and is killed at its end.
        """
        self._stopping.is_noticed = True
        return self._stopping

    def ready(self) -> None:
        """Say that this worker does its work from now on."""
        self._send("READY=1")

    def unready(self, reason: str = "") -> None:
        """Say that this worker cannot work at the moment; nobody ends it for that.

        `ready` says that it can again.
        """
        self._send(_unready(reason))

    def status(self, text: str) -> None:
        """Say in one line what this worker is doing; shown by ``status``."""
        self._send(f"STATUS={' '.join(text.splitlines())}")

    def healthy(self) -> None:
        """Give a heartbeat."""
        self._notifier.beat()

    def _beat(self) -> None:
        now = time.monotonic()
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + self._interval / 2
            self._notifier.beat()

    def _send(self, text: str) -> None:
        while not self._notifier.send(text):
            time.sleep(_RETRY)
