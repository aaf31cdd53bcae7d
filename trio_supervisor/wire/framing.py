"""Split received bytes into lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from trio_supervisor.errors import LimitExceededError, RemoteProtocolError
from trio_supervisor.wire.limits import DEFAULT_LIMITS

# Long enough for the id and the operation of any message, which come first [bytes].
_HEAD: Final = 512


class LineBuffer:
    """Splits a byte stream into lines, wherever partial reads cut it.

    Args:
        max_line: Longest line that is accepted, without its newline [bytes].
        max_skipped: Longest line that is skipped [bytes].
        on_overlong: Called with the beginning of a line as soon as the line is longer
            than *max_line*. If it returns, the line is skipped up to its newline and
            not kept. Without it, such a line is an error.
        max_short: Longest line that is accepted without *may_be_long* [bytes].
        may_be_long: Returns whether a line with the given beginning may be longer than
            *max_short*, up to *max_line*.
    """

    __slots__ = (
        "_allowed",
        "_max_line",
        "_max_short",
        "_max_skipped",
        "_may_be_long",
        "_on_overlong",
        "_skipped",
        "_tail",
    )

    def __init__(
        self,
        max_line: int = DEFAULT_LIMITS.line,
        max_skipped: int = DEFAULT_LIMITS.skipped,
        on_overlong: Callable[[bytes], None] | None = None,
        max_short: int | None = None,
        may_be_long: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._max_line = max_line
        self._max_short = max_line if max_short is None else min(max_short, max_line)
        self._allowed = self._max_short
        self._may_be_long = may_be_long
        self._max_skipped = max_skipped
        self._on_overlong = on_overlong
        # A bytearray over-allocates, so appending many pieces takes linear time.
        self._tail = bytearray()
        # Bytes of the current line if it is being skipped.
        self._skipped: int | None = None

    def receive_data(self, data: bytes | bytearray) -> Iterator[bytes]:
        """Yield the lines that *data* completes, without their newlines.

        Exhaust it before the next call: an error in *data* is raised after the valid
        lines before it.

        Raises:
            LimitExceededError: a line is longer than ``max_line`` and cannot be
                skipped, or longer than ``max_skipped``.
        """
        *whole, rest = bytes(data).split(b"\n")
        for line in whole:
            if self._skipped is not None or self._is_overlong(line):
                self._skip(line)
                self._skipped = None
                self._allowed = self._max_short
                continue
            if self._tail:
                self._tail += line
                line = bytes(self._tail)
                self._tail = bytearray()
            self._allowed = self._max_short
            yield line
        if self._skipped is not None or self._is_overlong(rest):
            self._skip(rest)
        elif rest:
            self._tail += rest

    def receive_eof(self) -> None:
        """Check that the stream may end here.

        Raises:
            RemoteProtocolError: it ends inside a line.
        """
        if self._tail or self._skipped is not None:
            raise RemoteProtocolError("the stream ended inside a line")

    def _is_overlong(self, piece: bytes) -> bool:
        length = len(self._tail) + len(piece)
        if length <= self._allowed:
            return False
        if self._may_be_long is not None and self._may_be_long(self._head(piece)):
            self._allowed = self._max_line
        return length > self._allowed

    def _head(self, piece: bytes) -> bytes:
        return bytes(self._tail[:_HEAD] + piece[:_HEAD])[:_HEAD]

    def _skip(self, piece: bytes) -> None:
        if self._skipped is None:
            problem = f"a line is longer than {self._allowed} bytes"
            if self._on_overlong is None:
                raise LimitExceededError(problem)
            self._on_overlong(self._head(piece))
            self._skipped = len(self._tail)
            self._tail = bytearray()
        self._skipped += len(piece)
        if self._skipped > self._max_skipped:
            raise LimitExceededError(f"a line is longer than {self._max_skipped} bytes")
