"""What a peer needs of a stream: to send at once where that is possible.

Handing a line to a writing task and waking it costs more than sending it. A socket
takes a short line at once nearly always.
"""

from __future__ import annotations

import os
from typing import Final, Protocol

import trio
from attrs import frozen

# One read takes what a pipelining peer has sent; larger ones only cost memory.
_CHUNK: Final = 65536


class Transport(Protocol):
    """A stream of bytes in both directions."""

    def send_now(self, data: bytes) -> int:
        """Send what can be sent without waiting; return how many bytes that was.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: nothing can be sent.
        """
        ...

    async def send_all(self, data: bytes) -> None:
        """Send all of *data*; raises as `send_now`. Not to be cancelled lightly."""
        ...

    async def receive(self) -> bytes:
        """Wait for bytes; none at the end. Raises as `send_now`."""
        ...


@frozen
class StreamTransport:
    """Any stream: everything is left to the writing task."""

    _stream: trio.abc.Stream

    def send_now(self, data: bytes) -> int:
        """Send nothing: a stream cannot without waiting."""
        return 0

    async def send_all(self, data: bytes) -> None:
        """Send all of *data*."""
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        """Wait for bytes."""
        return bytes(await self._stream.receive_some(_CHUNK))


@frozen
class SocketTransport:
    """A socket, by its descriptor.

    It is asked for anew each time: -1 once closed, and so never somebody else's.
    """

    _stream: trio.SocketStream

    def send_now(self, data: bytes) -> int:
        """Send what the socket's buffer has room for."""
        try:
            return os.write(self._stream.socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise trio.BrokenResourceError(str(exc)) from exc

    async def send_all(self, data: bytes) -> None:
        """Send all of *data*."""
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        """Wait for bytes."""
        while True:
            descriptor = self._stream.socket.fileno()
            if descriptor < 0:
                raise trio.ClosedResourceError("the socket is closed")
            await trio.lowlevel.wait_readable(descriptor)
            try:
                return os.read(descriptor, _CHUNK)
            except BlockingIOError:
                continue
            except OSError as exc:
                raise trio.BrokenResourceError(str(exc)) from exc


def transport_of(stream: trio.abc.Stream) -> Transport:
    """Return the quickest transport over *stream*."""
    if isinstance(stream, trio.SocketStream):
        return SocketTransport(stream)
    return StreamTransport(stream)
