"""Who uses too much memory. Pure: sizes and times come in, names of workers go out.

Source of the rules: the memory-leak gem that is part of the Ruby system; ours add what
makes a limit below the baseline harmless.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from attrs import define, field, frozen

DEFAULT_THRESHOLD = 10 * 1024 * 1024
"""Growth that counts as an increase of the high-water mark [bytes]."""


@frozen(kw_only=True)
class MemoryUse:
    """Memory of one process at one moment [bytes]."""

    size: int
    """Resident, shared pages included (rss)."""
    private: int | None = None
    """Resident and of this process alone (uss); None: was not looked at."""

    @property
    def shared(self) -> int:
        """Resident and shared with others."""
        return self.size - (self.size if self.private is None else self.private)


@frozen(kw_only=True)
class TooLarge:
    """The process is over the limit for one process."""

    size: int
    limit: int

    def __str__(self) -> str:
        return f"its memory of {mebibytes(self.size)} is over {mebibytes(self.limit)}"


@frozen(kw_only=True)
class BelowBaseline:
    """The limit is below what the process needs from its start: no cause to act."""

    size: int
    limit: int

    def __str__(self) -> str:
        return (
            f"the limit of {mebibytes(self.limit)} is below the "
            f"{mebibytes(self.size)} that it needs right after its start, so another "
            f"restart would not help; it is left alone until it grows"
        )


@frozen(kw_only=True)
class Leaking:
    """The high-water mark was raised too often."""

    size: int
    increases: int

    def __str__(self) -> str:
        return (
            f"its memory reached a new maximum {self.increases} times, "
            f"{mebibytes(self.size)} at last"
        )


@frozen(kw_only=True)
class TotalTooLarge:
    """All together are over their limit, and this is the largest."""

    total: int
    limit: int

    def __str__(self) -> str:
        return (
            f"all workers together use {mebibytes(self.total)}, over "
            f"{mebibytes(self.limit)}, and it has the largest private memory"
        )


@frozen(kw_only=True)
class HostShort:
    """The host has less free memory than it should, and this is the largest."""

    free: int
    minimum: int

    def __str__(self) -> str:
        return (
            f"the host has {mebibytes(self.free)} left, under "
            f"{mebibytes(self.minimum)}, and it has the largest private memory"
        )


Verdict: TypeAlias = TooLarge | BelowBaseline | Leaking | None


@define(kw_only=True)
class MemoryHistory:
    """What is remembered of one process from sample to sample."""

    maximum_size_limit: int | None = None
    """[bytes]"""
    threshold_size: int = DEFAULT_THRESHOLD
    """[bytes]"""
    increase_limit: int | None = None
    sample_count: int = field(default=0, init=False)
    increase_count: int = field(default=0, init=False)
    current: MemoryUse | None = field(default=None, init=False)
    maximum_size: int | None = field(default=None, init=False)
    """The high-water mark [bytes]."""
    baseline: int | None = field(default=None, init=False)
    """What it needs anyway, where that is over the limit [bytes]."""

    def add(self, use: MemoryUse, *, was_futile: bool) -> Verdict:
        """Take in a sample; return what is wrong with the process, if anything.

        Args:
            was_futile: Whether this process, hardly started, replaces one that was
                restarted for its memory. If it is over the limit as well, its
                successor will be too: restarting for that would go on for ever.
        """
        self.sample_count += 1
        self.current = use
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
        if (
            self.increase_limit is not None
            and self.increase_count >= self.increase_limit
        ):
            return Leaking(size=use.size, increases=self.increase_count)
        return None


def total_size(uses: Iterable[MemoryUse]) -> int:
    """Return what many processes use together [bytes].

    The largest shared part plus the sum of the private ones: what is shared is mostly
    shared by all, having been inherited from one parent.
    """
    uses = list(uses)
    private = sum(use.size - use.shared for use in uses)
    return private + max((use.shared for use in uses), default=0)


def largest(uses: Mapping[str, MemoryUse]) -> str | None:
    """Return the key with the largest private memory; None: there is none."""
    return max(uses, key=lambda key: uses[key].size - uses[key].shared, default=None)


def mebibytes(size: int) -> str:
    """Return *size* [bytes] for people."""
    return f"{size / 2**20:.1f} MiB"
