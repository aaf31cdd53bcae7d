"""Read one pipe of a child, record its lines, and pass them on."""

from __future__ import annotations

import errno
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
from trio_supervisor.process.output.terminal import LineEnds

# Default capacity of a pipe.
_STEP: Final = 64 * 1024
# Read within 0.1 ms. Larger reads are not faster, and delay other tasks.
_WIDE_STEP: Final = 256 * 1024
_FULL_READS: Final = 3
"""A pipe is enlarged after this number of full reads in a row."""
_PARTIAL_DELAY: Final = 0.5
"""An incomplete line, such as a prompt, is passed on after this time [s]."""


def _never() -> bool:
    return False


def _ignored(_origin: Origin, _data: bytes) -> None:
    pass


@frozen
class Sink:
    """A destination, and the renderer of the lines that are written to it."""

    destination: Destination
    render: Renderer
    takes_bytes: Callable[[], bool] = _never
    """Whether bytes are passed on immediately instead of in whole lines."""


@define(eq=False)
class Pump:
    """Reads one pipe."""

    _descriptor: int
    """The read end; closed when `run` ends."""
    _origin: Origin
    _stream: Stream
    _sink: Sink
    _record: Callable[[Block], None]
    """Called with each block immediately."""
    _pipe_enlarger: PipeEnlarger
    _line_ends: LineEnds | None = None
    """Of a terminal; None: it is a pipe."""
    _tap: Callable[[Origin, bytes], None] = _ignored
    """Called with the bytes of each read immediately."""
    _assembler: LineAssembler = field(factory=LineAssembler, init=False)
    _pending: deque[Block] = field(factory=deque, init=False)
    """Blocks that were read and are not rendered yet."""
    _rendered: Iterator[Data] = field(factory=lambda: iter(()), init=False)
    _has_ended: bool = field(default=False, init=False)
    _step: int = field(default=_STEP, init=False)
    _full_reads: int = field(default=0, init=False)
    _is_wide: bool = field(default=False, init=False)
    _ahead: int = field(default=0, init=False)
    """Length of the part of the incomplete line that was passed on already [bytes]."""
    _is_continued: bool = field(default=False, init=False)
    """Whether the next block continues a line that was cut."""
    _overdue_at: float = field(default=math.inf, init=False)
    """Time at which the incomplete line is passed on, by trio's clock [s]."""
    # A child that is being stopped may still print a lot: only `stop` and EOF end this.
    _scope: trio.CancelScope = field(
        factory=lambda: trio.CancelScope(shield=True), init=False
    )
    _waiting: trio.CancelScope = field(factory=trio.CancelScope, init=False)

    async def run(self) -> None:
        """Read until end-of-file, or until `stop`.

        Everything that was read is passed on, also after a cancellation.
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
        """Read what is in the pipe: all output of the child, which has exited.

        A last line without newline counts as complete. Other processes that have the
        write end are not awaited.
        """
        left = 0 if self._has_ended else capacity_of(self._descriptor)
        while left > 0 and (count := self._read(_WIDE_STEP)):
            left -= count
        self._end_lines()
        self._waiting.cancel()

    def stop(self) -> None:
        """Read what is in the pipe, and stop."""
        self.finish()
        self._has_ended = True
        self._scope.cancel()

    async def _drain(self) -> None:
        while not self._has_ended:
            if count := self._read(self._step):
                self._adapt(count)
                await trio.lowlevel.checkpoint()
            elif trio.current_time() >= self._overdue_at:
                # Only after everything is read: this task itself may be late.
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
                self._sink.destination.put(data)  # it was already taken from the queue
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
        """Read once, and return the number of bytes; 0: no data now, or end-of-file."""
        try:
            data = os.read(self._descriptor, size)
        except BlockingIOError:
            return 0
        except OSError as exc:
            if exc.errno != errno.EIO:  # no process has the terminal any more
                raise
            data = b""
        if not data:
            self._has_ended = True
            self._end_lines()
            return 0
        self._tap(self._origin, data)
        lines = data if self._line_ends is None else self._line_ends.add(data)
        self._take(self._assembler.add(lines))
        self._note_incomplete_line(is_new=b"\n" in lines)
        return len(data)

    def _end_lines(self) -> None:
        """Take the last line, if it has no newline."""
        if self._line_ends is not None:
            self._take(self._assembler.add(self._line_ends.end()))
        self._take(self._assembler.end())

    def _take(self, parts: Iterator[tuple[Data, bool]]) -> None:
        now = time.time()
        for data, is_cut in parts:
            block = Block(
                now, self._origin, self._stream, data, is_cut, self._is_continued
            )
            self._is_continued = is_cut
            self._record(block)
            ahead, self._ahead = self._ahead, max(0, self._ahead - len(data))
            if ahead < len(data):
                rest = block._replace(data=data[ahead:]) if ahead else block
                self._pending.append(rest)

    def _note_incomplete_line(self, *, is_new: bool) -> None:
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
