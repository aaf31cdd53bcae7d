"""Queue the lines for a peer: send them immediately if possible, or in a task."""

from __future__ import annotations

from collections.abc import Callable

import trio
from attrs import define, field

from trio_supervisor.errors import ConnectionLostError
from trio_supervisor.link.transport import Transport


@define(eq=False)
class Outbox:
    """The lines to be sent over one connection."""

    _transport: Transport
    _limit: int
    """Largest size of the queue [bytes]."""
    _on_overflow: Callable[[int], None]
    """Called with the size of the queue when it exceeds the limit."""
    _on_broken: Callable[[Exception], None]
    """Called once, when the peer accepts no more data."""
    is_gathering: bool = field(default=False, init=False)
    """Whether lines are queued until `flush`."""
    is_closed: bool = field(default=False, init=False)
    """Whether nothing can be sent any more."""
    queued: int = field(default=0, init=False)
    """Size of the lines that are not sent yet [bytes]."""
    _lines: list[bytes] = field(factory=list, init=False)
    _is_writing: bool = field(default=False, init=False)
    """Whether the writing task is sending."""
    _sendable: trio.lowlevel.ParkingLot = field(
        factory=trio.lowlevel.ParkingLot, init=False
    )
    """The writing task, while there is nothing to send."""
    _sent: trio.lowlevel.ParkingLot = field(
        factory=trio.lowlevel.ParkingLot, init=False
    )
    """Tasks that wait until the queue is empty."""

    @property
    def is_empty(self) -> bool:
        """Whether no line is queued; the writing task may still send one."""
        return not self._lines

    def send(self, line: bytes, *, is_alone: bool = False) -> None:
        """Send *line*: immediately if it *is_alone*, otherwise together with others.

        Raises:
            ConnectionLostError: the connection has ended, or the peer is not reading.
        """
        if self.is_closed:
            raise ConnectionLostError("the connection has ended")
        self.queued += len(line)
        if self.queued > self._limit:
            self._on_overflow(self.queued)
            raise ConnectionLostError("the peer is not reading")
        self._lines.append(line)
        if is_alone and not self.is_gathering:
            self.flush()
        else:
            self._sendable.unpark_all()

    def flush(self) -> None:
        """Send queued lines, as far as the socket accepts them now."""
        if not self._lines:
            return
        if self._is_writing:
            return  # the writing task sends them next
        data = b"".join(self._lines)
        self._lines.clear()
        try:
            sent = self._transport.send_now(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self._break(exc)
            return
        self.queued -= sent
        self._sent.unpark_all()
        if sent < len(data):
            self._lines.append(data[sent:] if sent else data)
            self._sendable.unpark_all()

    async def wait_drained(self) -> None:
        """Wait until the queue is sent, or nothing can be sent any more."""
        await trio.lowlevel.checkpoint()
        while self.queued and not self.is_closed:
            await self._sent.park()

    async def run(self) -> None:
        """Send what could not be sent immediately, until the peer accepts no more."""
        while not self.is_closed:
            if not self._lines:
                await self._sendable.park()
            data = b"".join(self._lines)
            self._lines.clear()
            if not data:
                continue
            self._is_writing = True
            try:
                await self._transport.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                self._break(exc)
                return
            self._is_writing = False
            self.queued -= len(data)
            self._sent.unpark_all()

    def close(self) -> None:
        """Refuse further lines: the connection has ended."""
        self.is_closed = True
        self._sent.unpark_all()

    def _break(self, exc: Exception) -> None:
        self.queued = 0
        self.close()
        self._on_broken(exc)
