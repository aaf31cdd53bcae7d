"""Make standard streams safe for any text, also for text from a peer.

Characters that the encoding lacks are replaced and control characters are escaped here,
so that no verb has to.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, TextIO

from trio_supervisor.process.output.escaping import escape_text

_ERRORS: Final = "trio_supervisor"
_ASCII_DRAWINGS: Final = str.maketrans(
    {
        "─": "-",
        "│": "|",
        "╭": "+",
        "╰": "+",
        "├": "+",
        "▶": ">",
        "⏸": "=",
        "⟶": "->",
        "→": "->",
        "…": "...",
        "\N{MULTIPLICATION SIGN}": "x",
        "µ": "u",
        "█": "#",
        "░": ".",
    }
)
"""ASCII for the characters of our own texts and drawings."""


class SafeStream(io.TextIOWrapper):
    """A stream to which text is written with its control characters escaped.

    Args:
        raw: The stream that it replaces; our own colours are written there.
    """

    def __init__(self, raw: io.TextIOWrapper) -> None:
        super().__init__(
            raw.buffer,
            encoding=raw.encoding,
            errors=_ERRORS,
            newline="\n",
            line_buffering=raw.line_buffering,
        )
        self.raw = raw

    def write(self, text: str, /) -> int:
        """Write *text*; newlines and tabs stay."""
        super().write(escape_text(text))
        return len(text)

    def close(self) -> None:
        """Flush; the buffer belongs to the raw stream, and stays open."""
        if not self.buffer.closed:
            self.flush()


def open_missing_streams() -> None:
    """Open the standard streams that the shell has closed (``2>&-``) on ``/dev/null``.

    Otherwise the next socket would get the number of a stream, and lines that are
    printed there would be sent over it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)  # children need them as well
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Replace standard output and error by safe streams within the block.

    Where the encoding lacks a character, one of our own drawings becomes ASCII, and any
    other is shown as ``\\xe9`` or ``\\u20ac``.
    """
    codecs.register_error(_ERRORS, _replace)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _guarded(sys.stdout), _guarded(sys.stderr)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # closed, or the reader has exited
                stream.flush()
        sys.stdout, sys.stderr = before


def raw_stream(stream: TextIO) -> TextIO:
    """Return the stream below *stream* that does not escape: for our own colours."""
    return stream.raw if isinstance(stream, SafeStream) else stream


def _guarded(stream: TextIO) -> TextIO:
    if isinstance(stream, SafeStream) or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors=_ERRORS)
    return SafeStream(stream)


def is_unicode(encoding: str | None) -> bool:
    """Return whether *encoding* is UTF-8: only then JSON needs no ASCII escapes."""
    try:
        return codecs.lookup(encoding or "ascii").name == "utf-8"
    except LookupError:
        return False


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_ASCII_DRAWINGS)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end
