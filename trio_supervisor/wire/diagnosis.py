"""What the doctor reports about a worker, as data."""

from __future__ import annotations

from enum import Enum
from typing import Any

from attrs import field, frozen
from attrs.validators import instance_of

_data = instance_of(str)


class Severity(Enum):
    """Effect of a finding on the worker, the worst first."""

    STANDSTILL = "standstill"
    """It does not make progress."""
    DANGER = "danger"
    """It will soon fail or stop making progress."""
    TROUBLE = "trouble"
    """It works, but worse than it could or than it did before."""


class Certainty(Enum):
    """Reliability of a finding, the most certain first."""

    SURE = "sure"
    LIKELY = "likely"
    POSSIBLE = "possible"
    """It may be intended."""


@frozen(kw_only=True)
class Finding:
    """One problem of a worker."""

    kind: str
    """One of `trio_supervisor.policy.doctor.findings.KINDS`."""
    title: str
    """What and where, in one line."""
    text: str
    evidence: tuple[str, ...]
    """Lines such as a stack, the holders of objects, or what has grown."""
    advice: str
    """What to do, and which commands show more."""
    severity: Severity
    certainty: Certainty


@frozen(kw_only=True)
class Diagnosis:
    """The answer to `Doctor`."""

    data: str = field(validator=_data)
    """All of it as text."""
    duration: float
    """How long the worker was examined [s]."""
    findings: tuple[Finding, ...]
    """The worst first, then the most certain, then causes before effects. Empty: no
    problem was found."""
    looked_at: tuple[str, ...]
    """What was examined and what was seen there, one line each."""
    left_out: tuple[str, ...]
    """What could not be examined, and why."""
    overhead: float
    """Processors that the agent used during the examination, from 0 to 1."""
    pause: float
    """How long the process was stopped for the examination, in total [s]."""
    facts: dict[str, Any]
    """The figures that the findings are derived from."""
    way: str = ""
    """How a worker that does not answer was examined: ``memory`` (its memory, read from
    outside), ``faulthandler``, ``kernel``, ``outside`` or ``ended``. Empty: by its own
    agent."""
