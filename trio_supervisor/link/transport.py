"""Send to a stream immediately if possible.

Passing a line to a writing task costs more than sending it, and a socket almost always
accepts a short line immediately.
"""

from __future__ import annotations

import os
from typing import Final, Protocol

import trio
from attrs import frozen

# Enough for the calls of a pipelining peer; larger reads only cost memory.
_CHUNK: Final = 65536


class Transport(Protocol):
    """A stream of bytes in both directions."""

    def send_now(self, data: bytes) -> int:
        """Send as much as possible without waiting; return the number of bytes.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: nothing can be sent.
        """
        ...

    async def send_all(self, data: bytes) -> None:
        """Send all of *data*; raises as `send_now`. A cancellation may send a part."""
        ...

    async def receive(self) -> bytes:
        """Wait for data; empty at end-of-file. Raises as `send_now`."""
        ...


@frozen
class StreamTransport:
    """Any stream; the writing task sends everything."""

    _stream: trio.abc.Stream

    def send_now(self, data: bytes) -> int:
        """Send nothing: a stream cannot send without waiting."""
        return 0

    async def send_all(self, data: bytes) -> None:
        """Send all of *data*."""
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        """Wait for bytes."""
        return bytes(await self._stream.receive_some(_CHUNK))


@frozen
class SocketTransport:
    """A socket, used through its descriptor.

    The number is read on each use: it is -1 after a close, so a reused number is never
    used.
    """

    _stream: trio.SocketStream

    def send_now(self, data: bytes) -> int:
        """Send as much as fits into the socket buffer."""
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
    """Return the fastest transport over *stream*."""
    if isinstance(stream, trio.SocketStream):
        return SocketTransport(stream)
    return StreamTransport(stream)
