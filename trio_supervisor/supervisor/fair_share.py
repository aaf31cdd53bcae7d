"""Share the event loop fairly among clients, however much one of them sends."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import trio
from attrs import define, field

from trio_supervisor.errors import LimitExceededError
from trio_supervisor.link.slices import SLICE

T = TypeVar("T")

# Part of the loop's time that a client may use, on average, before it has to queue.
_RATE: Final = 0.5
_ALLOWANCE: Final = 2 * SLICE
_LATELY: Final = 0.05
MAX_CONNECTIONS: Final = 256
"""Connections of one process."""
MAX_WAITING: Final = 256
"""Calls of one process that wait for a worker or the controller."""
MAX_STREAMS: Final = 32
"""Calls of one process that are answered with a stream, such as ``logs``."""
# [bytes]; a single answer may be larger.
_MOST_QUEUED: Final = 1024 * 1024


@define(eq=False)
class Account:
    """The work done for one process; all its connections share it."""

    process_id: int | None
    connections: int = field(default=0, init=False)
    waiting: int = field(default=0, init=False)
    streams: int = field(default=0, init=False)
    _debt: float = field(default=0.0, init=False)
    _at: float = field(default=0.0, init=False)

    def charge(self, seconds: float, now: float) -> None:
        """Add work that was done [s]."""
        self._debt = self._debt_at(now) + seconds
        self._at = now

    def is_spent(self, now: float) -> bool:
        """Return whether this process has recently used more than its share."""
        return self._debt_at(now) > _ALLOWANCE

    def _debt_at(self, now: float) -> float:
        return max(0.0, self._debt - (now - self._at) * _RATE)

    def counted(
        self, work: Coroutine[Any, Any, T], *, is_stream: bool
    ) -> Coroutine[Any, Any, T]:
        """Return *work*, counted against the limits until it ends.

        Raises:
            LimitExceededError: this process has too many calls in progress.
        """
        if self.waiting >= MAX_WAITING or (is_stream and self.streams >= MAX_STREAMS):
            work.close()
            what = f"{self.streams} streams" if is_stream else f"{self.waiting} calls"
            raise LimitExceededError(
                f"process {self.process_id} already has {what} in progress"
            )
        self.waiting += 1
        self.streams += is_stream
        return self._run(work, is_stream)

    async def _run(self, work: Coroutine[Any, Any, T], is_stream: bool) -> T:
        try:
            return await work
        finally:
            self.waiting -= 1
            self.streams -= is_stream


@define(eq=False)
class FairShare:
    """Decides whose turn it is.

    A process that makes few calls is served immediately. Processes that have used more
    than their share queue: for all of them together, one slice of work is done in each
    turn of the event loop.
    """

    clock: Callable[[], float] = time.perf_counter
    """[s]"""
    _accounts: dict[int | None, Account] = field(factory=dict, init=False)
    queue: trio.StrictFIFOLock = field(factory=trio.StrictFIFOLock, init=False)
    """Held while work is done for a process that has used more than its share."""

    _last: Turns | None = field(default=None, init=False)
    """The last connection above its share that had a turn."""
    _last_at: float = field(default=0.0, init=False)

    def has_rivals(self, turns: Turns, now: float) -> bool:
        """Return whether another connection has recently been above its share as well.

        A connection that is alone need not queue: that would cost a turn of the loop.
        """
        if self.queue.locked():
            return True
        return self._last not in (None, turns) and now - self._last_at < _LATELY

    def note_turn(self, turns: Turns, now: float) -> None:
        """Record that *turns* has a turn."""
        self._last, self._last_at = turns, now

    @contextmanager
    def open(self, process_id: int | None) -> Iterator[Turns]:
        """Count a connection of that process for the length of the block.

        Raises:
            LimitExceededError: the process has too many connections.
        """
        account = self._accounts.setdefault(process_id, Account(process_id))
        if account.connections >= MAX_CONNECTIONS:
            raise LimitExceededError(
                f"process {process_id} already has {account.connections} connections"
            )
        account.connections += 1
        try:
            yield Turns(self, account)
        finally:
            account.connections -= 1
            if not account.connections:
                del self._accounts[process_id]


@define(eq=False)
class Turns:
    """The turns of one connection."""

    share: FairShare
    account: Account
    most_queued: int | None = field(default=_MOST_QUEUED, init=False)
    _began: float | None = field(default=None, init=False)
    _is_queueing: bool = field(default=False, init=False)

    async def begin(self) -> None:
        """Wait for the turn of this connection."""
        now = self.share.clock()
        if self.account.is_spent(now):
            if self.share.has_rivals(self, now):
                await self.share.queue.acquire()
                self._is_queueing = True
            now = self.share.clock()
            self.share.note_turn(self, now)
        self._began = now

    @property
    def is_over(self) -> bool:
        """Whether it is time to let other connections have a turn."""
        assert self._began is not None
        return self.share.clock() - self._began >= SLICE

    def end(self) -> None:
        """Charge the work done, and let the next connection in the queue continue."""
        if self._began is not None:
            now = self.share.clock()
            self.account.charge(now - self._began, now)
            self._began = None
        if self._is_queueing:
            self._is_queueing = False
            self.share.queue.release()
