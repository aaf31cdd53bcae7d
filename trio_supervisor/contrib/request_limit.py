"""Decide after how many requests a worker is replaced. Pure."""

from __future__ import annotations

from typing import Final

# Of `max_requests`: enough that workers started together are not replaced together.
_SHARE: Final = 0.1


def default_jitter(max_requests: int) -> int:
    """Return the jitter of a service that declares none [requests]."""
    return int(max_requests * _SHARE)


def request_limit(max_requests: int, jitter: int, u: float) -> int:
    """Return the limit of one process [requests].

    Args:
        max_requests: The least number of requests.
        jitter: At most how many more.
        u: A random number from [0, 1), drawn by the caller for each process.
    """
    return max_requests + int(u * (jitter + 1))
