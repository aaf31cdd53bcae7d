"""Report of an allocation trace by memray, as data."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import instance_of

from trio_supervisor.wire.memory_reports import Amount
from trio_supervisor.wire.reports import Frame


@frozen(kw_only=True)
class AllocationSite:
    """Allocations of one stack that were not freed by the end of the period."""

    memory: int
    """[bytes]"""
    count: int
    frames: tuple[Frame, ...]
    """Innermost first. Empty: no Python frame."""


@frozen(kw_only=True)
class AllocationReport:
    """Memory allocated in a period and not freed by its end, by call stack."""

    data: str = field(validator=instance_of(str))
    """All of it as text."""
    duration: float
    """[s]"""
    total_allocated: int
    """Number of allocations in the period, including freed ones."""
    total_retained: Amount
    sites: tuple[AllocationSite, ...]
    """The largest first; small ones may be omitted."""
