"""What a doctor finds, in plain words, and how bad and how sure that is."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from attrs import asdict, frozen

from trio_supervisor.policy.doctor.facts import Lines


class Severity(Enum):
    """What it means for the worker, the worst first."""

    STANDSTILL = "standstill"
    """It does not get on with its work."""
    DANGER = "danger"
    """It soon will not."""
    TROUBLE = "trouble"
    """It does so worse than it could, or than it did."""


class Certainty(Enum):
    """How far it can be relied upon, the most first."""

    SURE = "sure"
    LIKELY = "likely"
    POSSIBLE = "possible"
    """It may be meant so."""


@frozen(kw_only=True)
class Finding:
    """Something that is wrong."""

    kind: str
    """One of `KINDS`."""
    title: str
    text: str
    evidence: Lines
    advice: str
    severity: Severity
    certainty: Certainty

    def as_plain(self) -> dict[str, Any]:
        """Return all of it by name, in plain words."""
        words = {"severity": self.severity.value, "certainty": self.certainty.value}
        return asdict(self, recurse=False) | words


KINDS: Final = (
    *("ended", "down", "stopped", "deadlock", "stuck", "spinning", "garbage", "lag"),
    *("tasks", "threads", "descriptors", "leak", "memory"),
)
"""Causes before what comes of them."""


def size(memory: int) -> str:
    """Return a number of bytes as text."""
    if abs(memory) < 2**20:
        return f"{memory / 2**10:.1f} KiB"
    return f"{memory / 2**20:.1f} MiB"
