"""Findings of a diagnosis: what is wrong, how severe and how certain that is."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from attrs import asdict, frozen

from trio_supervisor.policy.doctor.facts import Lines


class Severity(Enum):
    """What the finding means for the worker, the most severe first."""

    STANDSTILL = "standstill"
    """The worker makes no progress."""
    DANGER = "danger"
    """The worker will soon make no progress."""
    TROUBLE = "trouble"
    """The worker is slower, or uses more, than it should."""


class Certainty(Enum):
    """How reliable the finding is, the most reliable first."""

    SURE = "sure"
    LIKELY = "likely"
    POSSIBLE = "possible"
    """The behaviour may be intended."""


@frozen(kw_only=True)
class Problem:
    """One problem of a worker."""

    kind: str
    """One of `KINDS`."""
    title: str
    text: str
    evidence: Lines
    advice: str
    severity: Severity
    certainty: Certainty

    def as_plain(self) -> dict[str, Any]:
        """Return all fields by name, with enums as their values."""
        values = {"severity": self.severity.value, "certainty": self.certainty.value}
        return asdict(self, recurse=False) | values


KINDS: Final = (
    *("ended", "down", "stopped", "deadlock", "stuck", "spinning", "garbage", "lag"),
    *("tasks", "threads", "descriptors", "leak", "memory"),
)
"""All kinds, causes before their effects."""


def size(memory: int) -> str:
    """Return a number of bytes as text."""
    if abs(memory) < 2**20:
        return f"{memory / 2**10:.1f} KiB"
    return f"{memory / 2**20:.1f} MiB"
