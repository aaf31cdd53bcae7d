"""The limits of protocol 1, each with its reason."""

from __future__ import annotations

from typing import Final, NamedTuple


class Limits(NamedTuple):
    """Limits for what one peer sends; past them, its connection is closed."""

    # The longest message is a dump: 10,000 tasks with their frames are about 5 MiB.
    line: int = 8 * 1024 * 1024
    """Longest line, its newline excluded [bytes]."""
    # The longest calls of ours are a registration with its state, and a list of names.
    call: int = 256 * 1024
    """Longest line that is not an answer, its newline excluded [bytes]."""
    # Parsing an array takes 0.25 us: this is 4 ms, in which no other peer is served.
    containers: int = 16_384
    """Maximum number of arrays and objects in a call."""
    # A longer call or answer fails alone. Past this limit the connection is closed.
    skipped: int = 64 * 1024 * 1024
    """Longest line that is skipped instead of closing the connection [bytes]."""
    # Our messages need a few levels, because trees are sent as lists. Code that
    # recurses into 64 levels stays below Python's recursion limit.
    depth: int = 64
    """Deepest nesting of arrays and objects."""
    calls: int = 1024
    """Maximum number of calls that a peer has in flight."""
    # Twice the longest line: one that is being sent and one that waits.
    queued: int = 16 * 1024 * 1024
    """Bytes queued for a peer that does not read."""
    first_call: float = 10.0
    """Time within which an accepted peer must make its first call [s]."""


DEFAULT_LIMITS: Final = Limits()

TRUSTED_LIMITS: Final = DEFAULT_LIMITS._replace(
    call=DEFAULT_LIMITS.line,
    containers=DEFAULT_LIMITS.line,
    calls=65_536,
)
"""Between controller and supervisor, which exchange the calls of all clients."""

MAX_NAME: Final = 200
"""Longest name of a worker or service [characters]."""
MAX_ITEMS: Final = 10_000
"""Maximum number of elements in an array of strings, or object of numbers."""
MAX_TEXT: Final = 1000
"""Longest reason for a restart [characters]."""
CANARY_SECONDS: Final = 60.0
"""How long a canary is observed by default [s]."""
MAX_CANARY: Final = 86_400.0
"""Longest observation of a canary [s]: services cannot be scaled during it."""
MAX_STATE: Final = 64 * 1024
"""Longest state that a worker may register with, as JSON [bytes]."""
MAX_STATE_CONTAINERS: Final = 256
"""Maximum number of arrays and objects in such a state."""
