"""Bytes to lines: the part of the wire that sees partial reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from trio_supervisor.errors import LimitExceededError, RemoteProtocolError
from trio_supervisor.wire.limits import DEFAULT_LIMITS

# Holds the id and the operation of any message, which come first.
_HEAD: Final = 512


class LineBuffer:
    """Splits a byte stream into lines, however the bytes were cut on the way.

    Args:
        max_line: The longest line accepted, its newline excluded [bytes].
        max_skipped: The longest line that is skipped [bytes].
        on_overlong: Called with the beginning of a line longer than *max_line*, as soon
            as it is that long. If it returns, the line is skipped up to its newline,
            and none of it is kept. If it is not given, such a line is an error.
    """

    __slots__ = (
        "_max_line",
        "_max_skipped",
        "_on_overlong",
        "_skipped",
        "_tail",
        "_tail_length",
    )

    def __init__(
        self,
        max_line: int = DEFAULT_LIMITS.line,
        max_skipped: int = DEFAULT_LIMITS.skipped,
        on_overlong: Callable[[bytes], None] | None = None,
    ) -> None:
        self._max_line = max_line
        self._max_skipped = max_skipped
        self._on_overlong = on_overlong
        # A list of pieces: joining once at the newline keeps a long line linear.
        self._tail: list[bytes] = []
        self._tail_length = 0
        # Bytes of the present line, once it is skipped.
        self._skipped: int | None = None

    def receive_data(self, data: bytes | bytearray) -> Iterator[bytes]:
        """Yield the lines that *data* completes, without their newlines.

        To be exhausted before the next call: what is bad about *data* is raised
        after the good lines before it.

        Raises:
            LimitExceededError: a line is longer than ``max_line`` and cannot be
                skipped, or longer than ``max_skipped``.
        """
        *whole, rest = bytes(data).split(b"\n")
        for line in whole:
            if self._skipped is not None or self._is_overlong(line):
                self._skip(line)
                self._skipped = None
                continue
            if self._tail:
                line = b"".join([*self._tail, line])
                self._forget_tail()
            yield line
        if self._skipped is not None or self._is_overlong(rest):
            self._skip(rest)
        elif rest:
            self._tail.append(rest)
            self._tail_length += len(rest)

    def receive_eof(self) -> None:
        """Say that the stream ended.

        Raises:
            RemoteProtocolError: it ended inside a line.
        """
        if self._tail or self._skipped is not None:
            raise RemoteProtocolError("the stream ended inside a line")

    def _is_overlong(self, piece: bytes) -> bool:
        return self._tail_length + len(piece) > self._max_line

    def _skip(self, piece: bytes) -> None:
        if self._skipped is None:
            problem = f"a line is longer than {self._max_line} bytes"
            if self._on_overlong is None:
                raise LimitExceededError(problem)
            self._on_overlong(b"".join([*self._tail, piece[:_HEAD]])[:_HEAD])
            self._skipped = self._tail_length
            self._forget_tail()
        self._skipped += len(piece)
        if self._skipped > self._max_skipped:
            raise LimitExceededError(f"a line is longer than {self._max_skipped} bytes")

    def _forget_tail(self) -> None:
        self._tail.clear()
        self._tail_length = 0
