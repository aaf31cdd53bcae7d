"""Divide a service's ``stop_timeout`` among the steps of a drain. Pure."""

from __future__ import annotations

from typing import Final

from attrs import frozen

# How long clients may keep an idle connection once a worker stops [s].
_LINGER: Final = 1.0
# A worker is cancelled after 0.8 of its stop_timeout: see `Worker.stopping`. The rest
# is left for the application's own shutdown.
_UNTIL_CLOSED: Final = 0.7


@frozen(kw_only=True)
class DrainTimes:
    """How long a stopping worker waits, and for what."""

    linger: float
    """How long an accepted connection may wait for its next request [s]. Requests
    are answered with ``Connection: close`` during that time."""
    grace: float
    """How long requests in flight may take after that [s]."""

    @classmethod
    def within(cls, stop_timeout: float) -> DrainTimes:
        """Return the times that fit into *stop_timeout* [s]."""
        linger = min(_LINGER, 0.2 * stop_timeout)
        return cls(linger=linger, grace=_UNTIL_CLOSED * stop_timeout - linger)
