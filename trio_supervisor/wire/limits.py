"""The limits of protocol 1, each with its reason."""

from __future__ import annotations

from typing import Final, NamedTuple


class Limits(NamedTuple):
    """What one peer may ask of the other before its connection is closed."""

    # The longest message is a dump: 10,000 tasks with their frames are about 5 MiB.
    line: int = 8 * 1024 * 1024
    """Longest line, its newline excluded [bytes]."""
    # No call of ours is longer than a registration with its state, or a list of names.
    call: int = 256 * 1024
    """Longest line that is not an answer, its newline excluded [bytes]."""
    # An array costs its reader 0.25 us: this is 4 ms, in which nobody else is served.
    containers: int = 16_384
    """Most arrays and objects of a call."""
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

TRUSTED_LIMITS: Final = DEFAULT_LIMITS._replace(
    call=DEFAULT_LIMITS.line,
    containers=DEFAULT_LIMITS.line,
    calls=65_536,
)
"""Between controller and supervisor, for the calls of all clients together."""

MAX_NAME: Final = 200
"""Longest name, of a worker or service that is meant or registers [characters]."""
MAX_ITEMS: Final = 10_000
"""Most elements of an array of texts, and of an object of numbers."""
MAX_TEXT: Final = 1000
"""Longest reason for a restart [characters]."""
MAX_STATE: Final = 64 * 1024
"""Longest state of a worker that registers, as JSON [bytes]."""
MAX_STATE_CONTAINERS: Final = 256
"""Most arrays and objects of such a state."""
