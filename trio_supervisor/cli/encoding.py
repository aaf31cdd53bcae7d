"""Standard streams on which anything can be printed, whoever said it.

Characters that their encoding lacks are replaced, and what would steer a terminal is
escaped: in this one place, so that no verb can forget it.
"""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, TextIO

from trio_supervisor.process.output.escaping import escape_text

_ERRORS: Final = "trio_supervisor"
_STAND_INS: Final = str.maketrans(
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
"""ASCII for what our own texts and drawings use."""


class SafeStream(io.TextIOWrapper):
    """A stream to which text is written with its control characters escaped.

    Args:
        raw: The stream that it takes the place of, and that our own colours go to.
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
        """Write what is left; the buffer is that of the other stream, and stays."""
        if not self.buffer.closed:
            self.flush()


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Have anything printed safely on standard output and error, within the block.

    Lines and signs of our own drawings become ASCII where the encoding lacks them; any
    other character is shown as ``\\xe9``, ``\\u20ac`` and the like.
    """
    codecs.register_error(_ERRORS, _replace)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _guarded(sys.stdout), _guarded(sys.stderr)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads any more
                stream.flush()
        sys.stdout, sys.stderr = before


def raw_stream(stream: TextIO) -> TextIO:
    """Return what *stream* writes to without escaping: for our own escape sequences."""
    return stream.raw if isinstance(stream, SafeStream) else stream


def _guarded(stream: TextIO) -> TextIO:
    if isinstance(stream, SafeStream) or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors=_ERRORS)
    return SafeStream(stream)


def is_unicode(encoding: str | None) -> bool:
    """Return whether *encoding* is UTF-8, in which JSON is written as it is."""
    try:
        return codecs.lookup(encoding or "ascii").name == "utf-8"
    except LookupError:
        return False


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_STAND_INS)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end
