"""Where memory was allocated, exactly, as data: what memray traces."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import instance_of

from trio_supervisor.wire.memory_reports import Amount
from trio_supervisor.wire.reports import Frame


@frozen(kw_only=True)
class AllocationSite:
    """The allocations of one stack that were not freed by the end."""

    memory: int
    """[bytes]"""
    count: int
    frames: tuple[Frame, ...]
    """The innermost first. Empty: none of Python's."""


@frozen(kw_only=True)
class AllocationReport:
    """What was allocated in a period and not freed by its end, by place."""

    data: str = field(validator=instance_of(str))
    """The whole as text."""
    duration: float
    """[s]"""
    total_allocated: int
    """Allocations in the period, freed or not."""
    total_retained: Amount
    sites: tuple[AllocationSite, ...]
    """The largest first; what there is no room for is left out."""
