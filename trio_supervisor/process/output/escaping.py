"""Escape control characters in untrusted text before it is shown.

Text of a worker, a client or a file may contain characters that move a terminal's
cursor, change its title, make it type an answer, or reverse the direction of writing.
Standard library only, and fast to load.
"""

from __future__ import annotations

import re
from typing import Final

# C0 except tab, DEL and C1; then characters that change the direction of writing, break
# lines or are invisible: https://trojansource.codes, Unicode TR36.
_CLASS: Final = (
    "\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff"
)
_ANY: Final = re.compile(f"[{_CLASS}]")


def escape_line(text: str) -> str:
    r"""Return *text* as one line, with such characters as ``\x1b``, ``\u202e`` ….

    Newlines are escaped as well, so that no text can forge a line of its own.
    """
    return text if text.isprintable() else _ANY.sub(_escape, text)


def escape_text(text: str) -> str:
    """Return *text* with newlines kept and all other such characters escaped."""
    if text.isprintable():
        return text
    return "\n".join(_ANY.sub(_escape, line) for line in text.split("\n"))


def escape_json(text: str) -> str:
    r"""Return the JSON document *text* with such characters as ``\u009b``.

    The result is equivalent JSON. Newlines between values stay.
    """
    if text.isprintable():
        return text
    return "\n".join(_ANY.sub(_escape_in_json, line) for line in text.split("\n"))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _escape_in_json(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
