"""Write lines to a descriptor in a thread, so that a blocked write blocks only that."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.process.output.blocks import Data
from trio_supervisor.process.output.device import FILE, Device
from trio_supervisor.process.output.write_queue import WriteQueue

QUEUE_SIZE: Final = 4 * 1024 * 1024
"""Default size of the queue [bytes]."""
_RETRY: Final = 1.0
"""Time between attempts to write after an error such as a full disk [s]."""


def _same(_descriptor: int) -> int | None:
    """Go on writing to the same descriptor."""
    return None


def _ignore_problem(_problem: OSError | None) -> None:
    """Do nothing: the problem of a terminal cannot be written to that terminal."""


@define(eq=False)
class Destination:
    """A descriptor, a bounded queue, and a thread that writes the queue.

    It can be used from any thread, and after a fork; a forked child starts with an
    empty queue. If the queue is full, the oldest lines are dropped, and a line reports
    it once writing succeeds again.
    """

    descriptor: int
    _notice: Callable[[int], bytes]
    """Returns a line that reports how many lines were dropped."""
    send_timeout: float = 0.1
    """How long `send` waits for room in the queue [s]."""
    _limit: int = QUEUE_SIZE
    _is_owner: bool = False
    """Whether closing it closes the descriptor."""
    _idle: float | None = 10.0
    """The thread exits after this time without work, or a thousand files would keep a
    thousand threads [s]; None: never, in case none could be started later."""
    _on_problem: Callable[[OSError | None], None] = _ignore_problem
    """Called in the thread when writing fails; with None when it succeeds again."""
    _before_write: Callable[[int], int | None] = _same
    """Called in the thread with the descriptor; may return another one, which is owned,
    to write to instead."""
    _device: Device = FILE
    """Writes to the descriptor, and closes it."""
    _queue: WriteQueue = field(init=False)
    _is_failing: bool = field(default=False, init=False)
    _is_closing: bool = field(default=False, init=False)
    _next_descriptor: int | None = field(default=None, init=False)
    _waiters: set[Callable[[], object]] = field(factory=set, init=False)
    """Called once, when items were settled or writing fails."""
    _changed: threading.Condition = field(factory=threading.Condition, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _process_id: int = field(factory=os.getpid, init=False)

    def __attrs_post_init__(self) -> None:
        self._queue = WriteQueue(self._limit, self._notice, self._device.count)

    @property
    def lost(self) -> int:
        """Number of lines dropped so far."""
        return self._queue.lost

    def begin(self) -> None:
        """Start the thread now, instead of with the first line."""
        with self._changed:
            self._work()

    def put(self, data: Data) -> None:
        """Queue *data*, one or more whole lines. Never waits.

        Drops the oldest lines if the queue is full.
        """
        if self._process_id != os.getpid():
            self._restart_after_fork()
        with self._changed:
            if self._is_closing:
                self._queue.lost += self._device.count(data)
                return
            self._queue.add(data)
            self._work()

    async def send(self, data: Data) -> None:
        """Queue *data*; if the queue is full, wait up to `send_timeout` for room.

        So a destination that takes a block within that time slows down the sender, and
        one that does not (a stopped terminal) loses lines. No checkpoint if there is
        room. A cancellation queues *data* as well.
        """
        try:
            if not self._has_room(len(data)):
                with trio.move_on_after(self.send_timeout):
                    await self._until(lambda: self._has_room(len(data)))
        finally:
            self.put(data)

    async def flush(self) -> None:
        """Wait until everything queued so far is written, or writing fails.

        A cancellation leaves the rest to be written.
        """
        target = self._queue.accepted
        self._retry_now()
        await self._until(lambda: self._queue.settled >= target or self._is_failing)

    def drain(self, seconds: float) -> bool:
        """Like `flush`, without an event loop; return whether everything was written.

        Args:
            seconds: Time to wait at most.
        """
        if self._process_id != os.getpid():
            return True  # the queued lines belong to the parent process
        self._retry_now()
        with self._changed:
            target = self._queue.accepted
            self._changed.wait_for(
                lambda: self._queue.settled >= target or self._is_failing, seconds
            )
            return self._queue.settled >= target

    def replace(self, descriptor: int) -> None:
        """Switch to another descriptor, which is owned, after the current write.

        The old one is closed if it was owned.
        """
        with self._changed:
            self._next_descriptor, unused = descriptor, self._next_descriptor
            self._is_failing = False
            self._work()
        if unused is not None:
            os.close(unused)

    def close(self) -> None:
        """Accept no more lines, and end once all are written. Does not wait for it."""
        with self._changed:
            self._is_closing = True
            if self._thread is None:
                self._swap()
                self._close_descriptor()
            self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        return self._is_failing or self._queue.has_room(size)

    def _work(self) -> None:
        if self._thread is None and not self._is_closing:
            # A daemon thread: blocked in a write, it must not block the exit.
            self._thread = threading.Thread(
                target=self._run, name=f"output {self.descriptor}", daemon=True
            )
            try:
                self._thread.start()
            except RuntimeError:  # too many threads: retried with the next line
                self._thread = None
        self._changed.notify_all()

    def _retry_now(self) -> None:
        with self._changed:
            self._is_failing = False
            if self._queue:  # perhaps no thread could be started for these
                self._work()
            self._changed.notify_all()

    async def _until(self, is_true: Callable[[], bool]) -> None:
        token = trio.lowlevel.current_trio_token()
        while True:
            event = trio.Event()
            waiter = partial(token.run_sync_soon, event.set)
            with self._changed:
                if is_true():
                    return
                self._waiters.add(waiter)
            try:
                await event.wait()
            finally:
                with self._changed:
                    self._waiters.discard(waiter)

    def _restart_after_fork(self) -> None:
        """In a forked child: thread and queued lines belong to the parent process."""
        self._process_id = os.getpid()
        self._changed = threading.Condition()
        self._thread = None
        self._waiters.clear()
        self._queue.clear()
        self._is_failing = False

    # The following methods run in the thread.

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            if self._before_write is _same:
                self._write(batch)
                continue
            for item in batch:  # each may be the last one that fits
                self._follow()
                self._write([item])

    def _next_batch(self) -> list[Data] | None:
        with self._changed:
            is_idle = False
            while not self._queue:
                self._swap()
                if self._is_closing:
                    self._close_descriptor()
                if self._is_closing or is_idle:
                    self._thread = None
                    return None
                is_idle = not self._changed.wait(self._idle)
            self._swap()
            return self._queue.take_batch()

    def _swap(self) -> None:
        if self._next_descriptor is not None:
            if self._is_owner:
                os.close(self.descriptor)
            self.descriptor, self._next_descriptor = self._next_descriptor, None
            self._is_owner = True

    def _follow(self) -> None:
        """Go on with another descriptor if `_before_write` returns one."""
        if (another := self._before_write(self.descriptor)) is not None:
            self.replace(another)
            with self._changed:
                self._swap()

    def _close_descriptor(self) -> None:
        if self._is_owner:
            self._device.close(self.descriptor)
            self._is_owner = False

    def _write(self, batch: list[Data]) -> None:
        has_failed = False
        while batch:
            try:
                written = self._device.write(self.descriptor, batch)
            except BlockingIOError:
                self._await_writable()
            except OSError as exc:
                if not has_failed:
                    has_failed = True
                    self._on_problem(exc)
                if not self._pause():
                    with self._changed:
                        for item in batch:
                            self._queue.drop(item)
                    break
            else:
                with self._changed:
                    self._queue.settle(batch, written)
                    self._is_failing = False
                if has_failed:
                    has_failed = False
                    self._on_problem(None)
        self._announce()

    def _await_writable(self) -> None:
        # Another process that shares the terminal or pipe has made it non-blocking.
        poll = select.poll()
        poll.register(self.descriptor, select.POLLOUT)
        poll.poll(_RETRY * 1000)

    def _pause(self) -> bool:
        """Wait before another attempt; return False if it is closing."""
        with self._changed:
            self._is_failing = True
            self._announce()
            if self._is_closing:
                return False
            self._changed.wait_for(
                lambda: (
                    self._is_closing
                    or not self._is_failing
                    or self._next_descriptor is not None
                ),
                _RETRY,
            )
            self._swap()
            return True

    def _announce(self) -> None:
        with self._changed:
            waiters = list(self._waiters)
            self._waiters.clear()
            self._changed.notify_all()
        for waiter in waiters:
            with suppress(trio.RunFinishedError):
                waiter()
