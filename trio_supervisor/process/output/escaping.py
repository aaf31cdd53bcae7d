"""The one place that makes text of others harmless where people and terminals read it.

What a worker, a client or a file says may hold characters that move a terminal's
cursor, change its title, have it type an answer, or turn the direction of writing. They
are shown as what they are. Standard library only, and quick to load.
"""

from __future__ import annotations

import re
from typing import Final

# C0 but tab, DEL and C1; then what turns the direction of writing, breaks lines or is
# not seen: https://trojansource.codes, Unicode TR36.
_CLASS: Final = (
    "\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff"
)
_ANY: Final = re.compile(f"[{_CLASS}]")


def escape_line(text: str) -> str:
    r"""Return *text* as one line: each such character as ``\x1b``, ``\u202e`` ….

    A newline, too: nothing that is said becomes a line of its own.
    """
    return text if text.isprintable() else _ANY.sub(_escape, text)


def escape_text(text: str) -> str:
    """Return *text* with its newlines, and all other such characters shown."""
    if text.isprintable():
        return text
    return "\n".join(_ANY.sub(_escape, line) for line in text.split("\n"))


def escape_json(text: str) -> str:
    r"""Return *text*, which is JSON, with such characters as ``\u009b``: still JSON.

    The newlines and indentation between values stay.
    """
    if text.isprintable():
        return text
    return "\n".join(_ANY.sub(_escape_in_json, line) for line in text.split("\n"))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _escape_in_json(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
