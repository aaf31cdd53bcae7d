"""Define the target of each row; `python -m benchmarks` reports which are reached."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from attrs import frozen


@frozen(kw_only=True)
class Target:
    """The bounds on the figures of one row; None: no bound."""

    ratio_at_most: float | None = None
    """Upper bound on the median of the figure over the median of its floor."""
    ratio_at_least: float | None = None
    """Lower bound on the same, for rates."""
    median_at_most: float | None = None
    """Upper bound on the median, in the unit of the row."""
    median_at_least: float | None = None
    """Lower bound on the same, for rates."""
    tail_at_most: float | None = None
    """Upper bound on the 99th percentile of the figure over its median."""

    def __str__(self) -> str:
        words = []
        if self.ratio_at_most is not None:
            words.append(f"≤ {self.ratio_at_most:g} x floor")
        if self.ratio_at_least is not None:
            words.append(f"≥ {self.ratio_at_least:g} x floor")
        if self.median_at_most is not None:
            words.append(f"≤ {self.median_at_most:g}")
        if self.median_at_least is not None:
            words.append(f"≥ {self.median_at_least:g}")
        if self.tail_at_most is not None:
            words.append(f"p99 ≤ {self.tail_at_most:g} x median")
        return ", ".join(words) or "-"

    def is_reached(self, *, median: float, p99: float, floor: float | None) -> bool:
        """Return whether the figures of a row are within all bounds.

        Args:
            floor: Median of the floor; a bound on the ratio fails without one.
        """
        ratio = None if not floor else median / floor
        return (
            _is_within(ratio, self.ratio_at_most)
            and (
                self.ratio_at_least is None
                or (ratio is not None and ratio >= self.ratio_at_least)
            )
            and _is_within(median, self.median_at_most)
            and (self.median_at_least is None or median >= self.median_at_least)
            and _is_within(p99 / median if median else 1.0, self.tail_at_most)
        )


def _is_within(value: float | None, most: float | None) -> bool:
    return most is None or (value is not None and value <= most)


_CRASH: Final = Target(ratio_at_most=2.2, tail_at_most=3)
_CLI: Final = Target(ratio_at_most=3.5)

TARGETS: Final[Mapping[str, Target]] = MappingProxyType(
    {
        "crash to ready, 4 workers": _CRASH,
        "crash to ready, 4 workers, again at once": _CRASH,
        "crash to ready, 100 workers": _CRASH,
        "crash to ready, 100 workers, again at once": _CRASH,
        "supervisor killed, 4 workers registered": Target(median_at_most=10),
        "supervisor killed, 50 workers registered": Target(median_at_most=40),
        "supervisor killed, 100 workers registered": Target(median_at_most=80),
        "ping": Target(ratio_at_most=1.2),
        "status, 4 workers": Target(ratio_at_most=1.4),
        "status, 100 workers": Target(ratio_at_most=3),
        "forwarded call": Target(ratio_at_most=1.3),
        "pipelined pings, 64 in flight": Target(ratio_at_least=0.4),
        "serve to all ready, 4 workers": Target(ratio_at_most=1.8),
        "serve to all ready, 100 workers": Target(ratio_at_most=1.8),
        "serve to all ready, 500 workers": Target(ratio_at_most=1.8),
        "graceful stop, 100 workers": Target(median_at_most=100),
        "ping, whole process": _CLI,
        "status --json, whole process": _CLI,
        "idle: CPU of both, 100 workers, 30 s": Target(median_at_most=0.25),
        "idle: PSS of both, 100 workers": Target(median_at_most=45),
        "idle: PSS of a worker, 100 workers": Target(median_at_most=4),
        "memory tick, 1000 workers": Target(median_at_most=25),
        "memory tick, 1000 workers: loop blocked": Target(median_at_most=5),
        "scrape, 1000 workers": Target(median_at_most=100),
        "scrape, 1000 workers: loop blocked": Target(median_at_most=5),
        "pump: one worker to a file": Target(median_at_least=650),
        "pump: delay of the event loop, p99": Target(median_at_most=2),
    }
)
"""Targets by name of the row."""
