"""The limits of protocol 1, each with its reason."""

from __future__ import annotations

from typing import Final, NamedTuple


class Limits(NamedTuple):
    """What one peer may ask of the other before its connection is closed."""

    # The longest message is a dump: 10,000 tasks with their frames are about 5 MiB.
    line: int = 8 * 1024 * 1024
    """Longest line, its newline excluded [bytes]."""
    # A call or an answer past the limit fails alone, unless it never seems to end.
    skipped: int = 64 * 1024 * 1024
    """Longest line that is skipped, in place of closing the connection [bytes]."""
    # Diagnostics nest by await chains in arrays, not by depth; 64 is ample, and a
    # tree of that depth is walked without recursion trouble.
    depth: int = 64
    """Deepest nesting of arrays and objects."""
    calls: int = 1024
    """Calls that a peer may have in flight at a time."""
    # Twice the longest line: one being sent and one waiting.
    queued: int = 16 * 1024 * 1024
    """What is kept for a peer that does not read [bytes]."""
    first_call: float = 10.0
    """Time in which an accepted peer has to make its first call [s]."""


DEFAULT_LIMITS: Final = Limits()
