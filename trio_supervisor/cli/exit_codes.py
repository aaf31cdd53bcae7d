"""Exit codes of the command line, and what each of them means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MEANINGS: Final[Mapping[int, str]] = {
    0: "success",
    1: "failed; the message says why",
    2: "usage error: the command line is not valid",
    3: "no supervisor answers at the socket",
    4: "timed out; the request may still be carried out",
    10: "the target cannot be imported, or its declaration has a mistake",
    11: "the socket is in use by another controller",
    12: "the socket cannot be created",
    13: "restart limit reached (intensity, period)",
    14: "this process or system cannot supervise, or a library is missing",
    15: "a significant service failed",
    16: "a listening socket cannot be bound",
    129: "SIGHUP (terminal closed) before the application was started",
    130: "interrupted by Ctrl-C",
    143: "SIGTERM before the application was started",
}
"""The meaning of each exit code; a verb may say more precisely what it means there."""


def meanings(*codes: int) -> dict[int, str]:
    """Return the meanings of *codes*."""
    return {code: MEANINGS[code] for code in codes}
