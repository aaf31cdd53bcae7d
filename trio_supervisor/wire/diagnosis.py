"""What a doctor says of a worker, as data."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen
from attrs.validators import instance_of

_data = instance_of(str)


@frozen(kw_only=True)
class Finding:
    """Something that is wrong, in plain words."""

    kind: str
    """``ended``, ``down``, ``stopped``, ``deadlock``, ``stuck``, ``spinning``,
    ``garbage``, ``lag``, ``tasks``, ``threads``, ``descriptors``, ``leak`` or
    ``memory``."""
    title: str
    """In one line: what, and where."""
    text: str
    evidence: tuple[str, ...]
    """Lines: a stack, who holds what, what there is more of."""
    advice: str
    """What to do, and which commands show more."""
    severity: str
    """``standstill``: it does not get on; ``danger``: it soon will not; ``trouble``: it
    does so worse than it could."""
    certainty: str
    """``sure``, ``likely``, or ``possible``: it may be meant so."""


@frozen(kw_only=True)
class Diagnosis:
    """The answer to `Doctor`."""

    data: str = field(validator=_data)
    """The whole as text."""
    duration: float
    """For how long the worker was looked at [s]."""
    findings: tuple[Finding, ...]
    """The worst first, then the most certain, then the cause before what comes of it.
    Empty: nothing was found."""
    looked_at: tuple[str, ...]
    """What was looked at and what was seen there, a line each."""
    left_out: tuple[str, ...]
    """What could not be looked at, and why."""
    overhead: float
    """Processors that the agent used meanwhile, from 0 to 1."""
    pause: float
    """How long the process stood still for it, in all [s]."""
    facts: dict[str, Any]
    """The figures of which the findings were made."""
    way: str = ""
    """Who told it of a worker that does not answer: ``memory`` (its own, read from
    outside), ``faulthandler``, or ``kernel``. Empty: the worker did."""
