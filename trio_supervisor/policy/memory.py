"""Decide which worker uses too much memory. Pure.

Source of the rules: the memory-leak gem, which is part of the Ruby system. The rule
that makes a limit below the baseline harmless is our addition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from attrs import define, field, frozen

BASELINE_SAMPLES = 2
"""Samples after which the memory that a process needs from its start is known."""
DEFAULT_THRESHOLD = 10 * 1024 * 1024
"""Growth that counts as an increase of the high-water mark [bytes]."""


@frozen(kw_only=True)
class MemoryUse:
    """Memory of one process at one moment [bytes]."""

    size: int
    """Resident memory, including shared pages (rss)."""
    private: int | None = None
    """Resident memory of this process alone (uss); None: not measured."""
    proportional: int | None = None
    """Resident memory, each page divided by the number of processes that share it
    (pss); None: not measured."""

    @property
    def shared(self) -> int:
        """Resident memory that is shared with other processes."""
        return self.size - (self.size if self.private is None else self.private)


@frozen(kw_only=True)
class TooLarge:
    """The process exceeds ``maximum_size_limit``."""

    size: int
    limit: int

    def __str__(self) -> str:
        return (
            f"its memory of {mebibytes(self.size)} exceeds "
            f"maximum_size_limit={mebibytes(self.limit)}"
        )


@frozen(kw_only=True)
class GrownBeyond:
    """The process has grown by more than ``growth_limit``."""

    size: int
    baseline: int
    limit: int

    def __str__(self) -> str:
        return (
            f"its memory has grown from {mebibytes(self.baseline)} right after its "
            f"start to {mebibytes(self.size)} (growth_limit={mebibytes(self.limit)})"
        )


@frozen(kw_only=True)
class BelowBaseline:
    """The limit is below what the process needs after its start: no restart."""

    size: int
    limit: int

    def __str__(self) -> str:
        return (
            f"maximum_size_limit={mebibytes(self.limit)} is below the "
            f"{mebibytes(self.size)} that it needs right after its start, so another "
            f"restart would not help; not restarting it until it grows"
        )


@frozen(kw_only=True)
class Leaking:
    """The high-water mark rose ``increase_limit`` times."""

    size: int
    increases: int

    def __str__(self) -> str:
        return (
            f"its memory reached a new maximum {self.increases} times "
            f"(increase_limit), now {mebibytes(self.size)}"
        )


@frozen(kw_only=True)
class TotalTooLarge:
    """All workers together exceed ``total_size_limit``; this is the largest."""

    total: int
    limit: int

    def __str__(self) -> str:
        return (
            f"all workers together use {mebibytes(self.total)} "
            f"(total_size_limit={mebibytes(self.limit)}), and it has the largest "
            f"private memory"
        )


@frozen(kw_only=True)
class HostShort:
    """The host has less than ``free_size_minimum``; this process is the largest."""

    free: int
    minimum: int

    def __str__(self) -> str:
        return (
            f"the host has {mebibytes(self.free)} of available memory "
            f"(free_size_minimum={mebibytes(self.minimum)}), and it has the largest "
            f"private memory"
        )


Verdict: TypeAlias = TooLarge | GrownBeyond | BelowBaseline | Leaking | None


@define(kw_only=True)
class MemoryHistory:
    """Memory samples of one process: high-water mark, increases and baseline."""

    maximum_size_limit: int | None = None
    """[bytes]"""
    threshold_size: int = DEFAULT_THRESHOLD
    """[bytes]"""
    increase_limit: int | None = None
    growth_limit: int | None = None
    """[bytes]"""
    sample_count: int = field(default=0, init=False)
    increase_count: int = field(default=0, init=False)
    current: MemoryUse | None = field(default=None, init=False)
    maximum_size: int | None = field(default=None, init=False)
    """The high-water mark [bytes]."""
    start_size: int = field(default=0, init=False)
    """The largest of the first `BASELINE_SAMPLES` [bytes]."""
    baseline: int | None = field(default=None, init=False)
    """What it needs after its start, if that exceeds the limit [bytes]."""

    def add(self, use: MemoryUse, *, was_futile: bool) -> Verdict:
        """Add a sample; return what is wrong with the process, if anything.

        Args:
            was_futile: Whether this process has just replaced one that was restarted
                for its memory. If it exceeds the limit as well, so will its successor,
                and restarts would never end.
        """
        self.sample_count += 1
        self.current = use
        if self.sample_count <= BASELINE_SAMPLES:
            self.start_size = max(self.start_size, use.size)
        if self.maximum_size is None:
            self.maximum_size = use.size
        elif use.size > self.maximum_size + self.threshold_size:
            self.maximum_size = use.size
            self.increase_count += 1
        limit = self.maximum_size_limit
        if limit is not None and use.size > limit:
            if was_futile:
                is_news = self.baseline is None
                self.baseline = use.size
                return BelowBaseline(size=use.size, limit=limit) if is_news else None
            if self.baseline is None or use.size > self.baseline + self.threshold_size:
                return TooLarge(size=use.size, limit=limit)
        growth, start = self.growth_limit, self.start_size
        if growth is not None and use.size > start + growth:
            return GrownBeyond(size=use.size, baseline=start, limit=growth)
        if (
            self.increase_limit is not None
            and self.increase_count >= self.increase_limit
        ):
            return Leaking(size=use.size, increases=self.increase_count)
        return None


def total_size(uses: Iterable[MemoryUse]) -> int:
    """Return the memory that processes use together [bytes].

    The sum of the proportional parts, in which each page is counted once (Linux); else
    an estimate: the largest shared part plus the sum of the private parts, since most
    shared pages are shared by all of them, inherited from one parent.
    """
    uses = list(uses)
    proportional = [u.proportional for u in uses if u.proportional is not None]
    if len(proportional) == len(uses):
        return sum(proportional)
    private = sum(use.size - use.shared for use in uses)
    return private + max((use.shared for use in uses), default=0)


def largest(uses: Mapping[str, MemoryUse]) -> str | None:
    """Return the key with the largest private memory; None if *uses* is empty."""
    return max(uses, key=lambda key: uses[key].size - uses[key].shared, default=None)


def mebibytes(size: int) -> str:
    """Return *size* [bytes] such as ``12.3 MiB``."""
    return f"{size / 2**20:.1f} MiB"
