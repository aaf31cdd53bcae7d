"""Standard streams of any encoding: characters that they lack are replaced."""

from __future__ import annotations

import codecs
import io
import sys
from typing import Final

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


def accept_any_encoding() -> None:
    """Have standard output and error write characters that their encoding lacks.

    Lines and signs of our own drawings become ASCII; any other character is shown as
    ``\\xe9``, ``\\u20ac`` and the like, as Python's ``backslashreplace`` does.
    """
    codecs.register_error(_ERRORS, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


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
