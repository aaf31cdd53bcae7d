"""Kinds of findings, and how their figures are written."""

from __future__ import annotations

from typing import Final

KINDS: Final = (
    *("ended", "down", "stopped", "deadlock", "stuck", "spinning", "garbage", "lag"),
    *("tasks", "threads", "descriptors", "leak", "memory"),
)
"""Kinds of findings, causes before effects."""


def size(memory: int) -> str:
    """Return a number of bytes as text."""
    if abs(memory) < 2**20:
        return f"{memory / 2**10:.1f} KiB"
    return f"{memory / 2**20:.1f} MiB"
