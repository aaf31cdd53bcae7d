"""Where lines are written, by a thread: what hangs there holds up nobody here."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.process.output.blocks import Data, count_lines

QUEUE_SIZE: Final = 4 * 1024 * 1024
"""What waits to be written [bytes]."""
# Small enough for a destination of 3 MB/s to show progress within our patience.
_BATCH_SIZE: Final = 256 * 1024
# Of writev(2): IOV_MAX.
_BATCH_COUNT: Final = 1000
_RETRY: Final = 1.0
"""Between attempts at a destination that refuses, as a full disk does [s]."""


def _ignore_problem(_problem: OSError | None) -> None:
    """The problem of a terminal is best not written to that terminal."""


@define(eq=False)
class Destination:
    """A descriptor, a bounded queue, and the thread that empties it.

    All of it may be used from any thread, and after a fork, in which the child starts
    with an empty queue. When the queue is full, the oldest is dropped, whole, and a
    line says so once something can be written again.
    """

    descriptor: int
    _notice: Callable[[int], bytes]
    """Makes the line that says how many were dropped."""
    patience: float = 0.1
    """How long `send` waits where the queue is full [s]."""
    _limit: int = QUEUE_SIZE
    _is_owner: bool = False
    """Whether the descriptor is closed with it."""
    _idle: float | None = 10.0
    """A thread with nothing to do ends, or a thousand files would keep as many [s];
    None: it stays, for when none can be started."""
    _on_problem: Callable[[OSError | None], None] = _ignore_problem
    """Called by the thread when writing begins to fail; None: it works again."""
    lost: int = field(default=0, init=False)
    """Lines that were dropped, ever."""
    _dropped: int = field(default=0, init=False)
    """Lines that were dropped and not told of yet."""
    _items: deque[Data] = field(factory=deque, init=False)
    _size: int = field(default=0, init=False)
    """Of what waits and of what is being written [bytes]."""
    _accepted: int = field(default=0, init=False)
    _settled: int = field(default=0, init=False)
    """Items that are written or dropped, of those that were accepted."""
    _is_overflowing: bool = field(default=False, init=False)
    """From when something was dropped until half of the queue is written."""
    _is_failing: bool = field(default=False, init=False)
    _is_closing: bool = field(default=False, init=False)
    _is_at_line_start: bool = field(default=True, init=False)
    _next_descriptor: int | None = field(default=None, init=False)
    _waiters: set[Callable[[], object]] = field(factory=set, init=False)
    """Called once, when something was settled or refused."""
    _changed: threading.Condition = field(factory=threading.Condition, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _process_id: int = field(factory=os.getpid, init=False)

    def begin(self) -> None:
        """Start the thread now, and not with the first line."""
        with self._changed:
            self._work()

    def put(self, data: Data) -> None:
        """Have *data* written: whole lines, at least one. Never waits.

        Drops what is oldest where the queue is full.
        """
        if self._process_id != os.getpid():
            self._start_over()
        with self._changed:
            if self._is_closing:
                self.lost += count_lines(data)
                return
            while self._items and self._size + len(data) > self._limit:
                self._drop(self._items.popleft())
                self._is_overflowing = True
            self._items.append(data)
            self._size += len(data)
            self._accepted += 1
            self._work()

    async def send(self, data: Data) -> None:
        """Have *data* written; where the queue is full, wait a little for room.

        So what takes a block within `patience` sets the pace of who prints, and what
        does not (a terminal that was stopped) loses lines. No checkpoint where there
        is room. After a cancellation *data* is written all the same.
        """
        try:
            if not self._has_room(len(data)):
                with trio.move_on_after(self.patience):
                    await self._until(lambda: self._has_room(len(data)))
        finally:
            self.put(data)

    async def flush(self) -> None:
        """Wait until all that was accepted until now is written, or is refused.

        A cancellation leaves the rest to be written.
        """
        target = self._accepted
        self._try_again()
        await self._until(lambda: self._settled >= target or self._is_failing)

    def drain(self, seconds: float) -> bool:
        """Like `flush`, for those without a loop; say whether all was written.

        Args:
            seconds: To wait at most.
        """
        if self._process_id != os.getpid():
            return True  # what is queued belongs to the parent
        self._try_again()
        with self._changed:
            target = self._accepted
            self._changed.wait_for(
                lambda: self._settled >= target or self._is_failing, seconds
            )
            return self._settled >= target

    def replace(self, descriptor: int) -> None:
        """Go on with another descriptor, which is owned, after what is being written.

        The old one is closed, if it was owned.
        """
        with self._changed:
            self._next_descriptor, unused = descriptor, self._next_descriptor
            self._is_failing = False
            self._work()
        if unused is not None:
            os.close(unused)

    def close(self) -> None:
        """Take no more, and end once all is written. Does not wait for it."""
        with self._changed:
            self._is_closing = True
            if self._thread is None:
                self._swap()
                self._close_descriptor()
            self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        return (
            self._size + size <= self._limit
            or self._size == 0
            or self._is_overflowing
            or self._is_failing
        )

    def _drop(self, item: Data) -> None:
        lines = count_lines(item)
        self._dropped += lines
        self.lost += lines
        self._size -= len(item)
        self._settled += 1

    def _work(self) -> None:
        if self._thread is None and not self._is_closing:
            # A daemon: where it hangs in a write, it must not keep the program.
            self._thread = threading.Thread(
                target=self._run, name=f"output {self.descriptor}", daemon=True
            )
            try:
                self._thread.start()
            except RuntimeError:  # too many threads: the next to come tries again
                self._thread = None
        self._changed.notify_all()

    def _try_again(self) -> None:
        with self._changed:
            self._is_failing = False
            if self._items:  # no thread could be started for them, perhaps
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

    def _start_over(self) -> None:
        """In a child that was forked: thread and queue are its parent's."""
        self._process_id = os.getpid()
        self._changed = threading.Condition()
        self._thread = None
        self._items.clear()
        self._waiters.clear()
        self._size = self._dropped = 0
        self._settled = self._accepted
        self._is_overflowing = self._is_failing = False

    # What follows is run by the thread.

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._write(batch)

    def _next_batch(self) -> list[Data] | None:
        with self._changed:
            is_idle = False
            while not self._items:
                self._swap()
                if self._is_closing:
                    self._close_descriptor()
                if self._is_closing or is_idle:
                    self._thread = None
                    return None
                is_idle = not self._changed.wait(self._idle)
            self._swap()
            batch: list[Data] = []
            size = 0
            while self._items and size < _BATCH_SIZE and len(batch) < _BATCH_COUNT:
                batch.append(self._items.popleft())
                size += len(batch[-1])
            if self._dropped:
                self._tell_of_dropped(batch)
            return batch

    def _tell_of_dropped(self, batch: list[Data]) -> None:
        notice = self._notice(self._dropped)
        if not self._is_at_line_start:
            notice = b"\n" + notice
        batch.insert(0, notice)
        self._size += len(notice)
        self._settled -= 1  # it will be settled, and was never accepted
        self._dropped = 0

    def _swap(self) -> None:
        if self._next_descriptor is not None:
            if self._is_owner:
                os.close(self.descriptor)
            self.descriptor, self._next_descriptor = self._next_descriptor, None
            self._is_owner = True

    def _close_descriptor(self) -> None:
        if self._is_owner:
            os.close(self.descriptor)
            self._is_owner = False

    def _write(self, batch: list[Data]) -> None:
        has_failed = False
        while batch:
            try:
                written = os.writev(self.descriptor, batch)
            except BlockingIOError:
                self._await_writable()
            except OSError as exc:
                if not has_failed:
                    has_failed = True
                    self._on_problem(exc)
                if not self._pause():
                    with self._changed:
                        for item in batch:
                            self._drop(item)
                    break
            else:
                self._settle(batch, written)
                if has_failed:
                    has_failed = False
                    self._on_problem(None)
        self._announce()

    def _settle(self, batch: list[Data], written: int) -> None:
        """Take off *batch* what was written."""
        done = 0
        rest = written
        while done < len(batch) and rest >= len(batch[done]):
            rest -= len(batch[done])
            done += 1
        last = batch[done] if rest else batch[done - 1]
        with self._changed:
            self._is_at_line_start = last[rest - 1] == 0x0A
            self._size -= written
            self._settled += done
            self._is_failing = False
            if 2 * self._size <= self._limit:
                self._is_overflowing = False
        del batch[:done]
        if rest:
            batch[0] = memoryview(batch[0])[rest:]

    def _await_writable(self) -> None:
        # Somebody who shares our terminal or pipe has made it non-blocking.
        poll = select.poll()
        poll.register(self.descriptor, select.POLLOUT)
        poll.poll(_RETRY * 1000)

    def _pause(self) -> bool:
        """Wait until it is worth another attempt; False: there will be none."""
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
