"""One task for each pipe: read what comes, keep the last of it, pass it on."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import trio
from attrs import define, field, frozen

from trio_supervisor.process.output.blocks import (
    Block,
    Data,
    LineAssembler,
    Origin,
    Stream,
)
from trio_supervisor.process.output.destination import Destination
from trio_supervisor.process.output.pipes import PipeEnlarger, capacity_of
from trio_supervisor.process.output.rendering import Renderer

# What a pipe holds at most, unless it was widened.
_STEP: Final = 64 * 1024
# Read within 0.1 ms. Larger reads are no faster, and others wait for longer.
_WIDE_STEP: Final = 256 * 1024
_FULL_READS: Final = 3
"""After so many in a row, a pipe is widened."""
_PARTIAL_DELAY: Final = 0.5
"""An incomplete line, such as a prompt, is passed on after this time [s]."""


def _never() -> bool:
    return False


@frozen
class Sink:
    """Where lines go, and how they look there."""

    destination: Destination
    render: Renderer
    takes_bytes: Callable[[], bool] = _never
    """Whether bytes are passed on as they come, and not in whole lines."""


@define(eq=False)
class Pump:
    """Drains one pipe, whether or not anybody can write as fast as it fills."""

    _descriptor: int
    """The end to read from; closed when `run` ends."""
    _origin: Origin
    _stream: Stream
    _sink: Sink
    _hear: Callable[[Block], None]
    """Called with each block, at once."""
    _pipe_enlarger: PipeEnlarger
    _assembler: LineAssembler = field(factory=LineAssembler, init=False)
    _pending: deque[Block] = field(factory=deque, init=False)
    """What was read, and is still to be rendered."""
    _rendered: Iterator[Data] = field(factory=lambda: iter(()), init=False)
    _has_ended: bool = field(default=False, init=False)
    _step: int = field(default=_STEP, init=False)
    _full_reads: int = field(default=0, init=False)
    _is_wide: bool = field(default=False, init=False)
    _ahead: int = field(default=0, init=False)
    """How much of the incomplete line has been passed on already [bytes]."""
    _is_continued: bool = field(default=False, init=False)
    """Whether the next block goes on with a line that was cut."""
    _overdue_at: float = field(default=math.inf, init=False)
    """When the incomplete line is passed on as it is, in trio's time [s]."""
    # A child that is being stopped may have much to say: only `stop` and EOF end this.
    _scope: trio.CancelScope = field(
        factory=lambda: trio.CancelScope(shield=True), init=False
    )
    _waiting: trio.CancelScope = field(factory=trio.CancelScope, init=False)

    async def run(self) -> None:
        """Drain until nobody has the other end any more, or until `stop`.

        What was read is passed on in any case.
        """
        try:
            with self._scope:
                await self._drain()
        finally:
            while (data := self._next_rendered()) is not None:
                self._sink.destination.put(data)
            os.close(self._descriptor)
            if self._is_wide:
                self._pipe_enlarger.give_back()

    @property
    def reading(self) -> int | None:
        """The end to read from; None: it is over."""
        return None if self._has_ended else self._descriptor

    def finish(self) -> None:
        """Take what is there now: all that the child, which has ended, has printed.

        A line without newline counts as one. Others that have the other end may go on
        printing: nobody waits for them.
        """
        left = 0 if self._has_ended else capacity_of(self._descriptor)
        while left > 0 and (count := self._read(_WIDE_STEP)):
            left -= count
        self._take(self._assembler.end())
        self._waiting.cancel()

    def stop(self) -> None:
        """Take what is there now, and end."""
        self.finish()
        self._has_ended = True
        self._scope.cancel()

    async def _drain(self) -> None:
        while not self._has_ended:
            if count := self._read(self._step):
                self._adapt(count)
                await trio.lowlevel.checkpoint()
            elif trio.current_time() >= self._overdue_at:
                # Not before all is read: we may be late ourselves.
                self._overdue_at = math.inf
                self._take(self._assembler.cut())
            elif not self._has_ended:
                with trio.CancelScope(deadline=self._overdue_at) as self._waiting:
                    await trio.lowlevel.wait_readable(self._descriptor)
            await self._pass_on()

    async def _pass_on(self) -> None:
        is_first = True
        while (data := self._next_rendered()) is not None:
            try:
                if not is_first:
                    await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                self._sink.destination.put(data)  # it was taken already
                raise
            is_first = False
            await self._sink.destination.send(data)

    def _next_rendered(self) -> Data | None:
        while (data := next(self._rendered, None)) is None:
            if not self._pending:
                return None
            self._rendered = iter(self._sink.render(self._pending.popleft()))
        return data

    def _read(self, size: int) -> int:
        """Read once, and return how much there was; 0: nothing, now or ever."""
        try:
            data = os.read(self._descriptor, size)
        except BlockingIOError:
            return 0
        if not data:
            self._has_ended = True
            self._take(self._assembler.end())
        else:
            self._take(self._assembler.add(data))
            self._mind_incomplete_line(is_new=b"\n" in data)
        return len(data)

    def _take(self, parts: Iterator[tuple[Data, bool]]) -> None:
        now = time.time()
        for data, is_cut in parts:
            block = Block(
                now, self._origin, self._stream, data, is_cut, self._is_continued
            )
            self._is_continued = is_cut
            self._hear(block)
            ahead, self._ahead = self._ahead, max(0, self._ahead - len(data))
            if ahead < len(data):
                rest = block._replace(data=data[ahead:]) if ahead else block
                self._pending.append(rest)

    def _mind_incomplete_line(self, *, is_new: bool) -> None:
        rest = self._assembler.rest
        if not rest:
            self._overdue_at = math.inf
            return
        if is_new or self._overdue_at == math.inf:
            self._overdue_at = trio.current_time() + _PARTIAL_DELAY
        if self._ahead < len(rest) and self._sink.takes_bytes():
            data = bytes(rest[self._ahead :])
            block = Block(time.time(), self._origin, self._stream, data, True, True)
            self._pending.append(block)
            self._ahead = len(rest)

    def _adapt(self, count: int) -> None:
        if count < self._step:
            self._full_reads = 0
            if count < _STEP // 8:
                self._step = _STEP
            return
        self._full_reads += 1
        if not self._is_wide and self._full_reads >= _FULL_READS:
            self._is_wide = self._pipe_enlarger.enlarge(self._descriptor)
        if self._is_wide:
            self._step = _WIDE_STEP
