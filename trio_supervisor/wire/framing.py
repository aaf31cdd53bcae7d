"""Bytes to lines: the part of the wire that sees partial reads."""

from __future__ import annotations

from collections.abc import Iterator

from trio_supervisor.errors import LimitExceededError, RemoteProtocolError
from trio_supervisor.wire.limits import DEFAULT_LIMITS


class LineBuffer:
    """Splits a byte stream into lines, however the bytes were cut on the way.

    Args:
        max_line: The longest line accepted, its newline excluded [bytes].
    """

    __slots__ = ("_max_line", "_tail", "_tail_length")

    def __init__(self, max_line: int = DEFAULT_LIMITS.line) -> None:
        self._max_line = max_line
        # A list of pieces: joining once at the newline keeps a long line linear.
        self._tail: list[bytes] = []
        self._tail_length = 0

    def receive_data(self, data: bytes | bytearray) -> Iterator[bytes]:
        """Yield the lines that *data* completes, without their newlines.

        To be exhausted before the next call: what is bad about *data* is raised
        after the good lines before it.

        Raises:
            LimitExceededError: a line is longer than ``max_line``.
        """
        *whole, rest = bytes(data).split(b"\n")
        for line in whole:
            if self._tail:
                self._check(self._tail_length + len(line))
                line = b"".join([*self._tail, line])
                self._tail.clear()
                self._tail_length = 0
            else:
                self._check(len(line))
            yield line
        if rest:
            self._tail.append(rest)
            self._tail_length += len(rest)
            self._check(self._tail_length)

    def receive_eof(self) -> None:
        """Say that the stream ended.

        Raises:
            RemoteProtocolError: it ended inside a line.
        """
        if self._tail:
            raise RemoteProtocolError("the stream ended inside a line")

    def _check(self, length: int) -> None:
        if length > self._max_line:
            raise LimitExceededError(f"a line is longer than {self._max_line} bytes")
