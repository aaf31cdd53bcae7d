"""Profile the garbage collector: collections, pauses and what triggered them."""

from __future__ import annotations

import gc
import sys
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from types import CodeType, FrameType
from typing import Any, Final

from attrs import define, field, frozen

from trio_supervisor.diagnostics.profile.sampling import StackLine
from trio_supervisor.diagnostics.stacks.frames import outwards, printable
from trio_supervisor.errors import BusyError, UnavailableError
from trio_supervisor.wire.reports import (
    GarbageReport,
    GenerationPauses,
    PauseBucket,
)

BUCKETS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Upper bounds (inclusive) of the histogram's buckets; one more is unbounded [s].

Half an order of magnitude each: from unnoticeable to the timeout of a request.
"""
_MIN_PAUSE: Final = 100_000
"""Shortest pause whose stack is recorded, which takes about 5 µs [ns]."""
_MAX_STACKS: Final = 300
"""Different stacks that are kept."""
_MAX_FRAMES: Final = 60
"""Innermost frames that are kept of a stack."""
_BAR: Final = 40
_GENERATIONS: Final = 3


@define(eq=False)
class _Generation:
    collections: int = 0
    collected: int = 0
    uncollectable: int = 0
    pause: int = 0
    longest: int = 0


@define(eq=False)
class _Cause:
    places: tuple[tuple[CodeType, int], ...]
    pause: int = 0


@frozen
class GarbageStack:
    """A stack that triggered collections."""

    pause: float
    """Total time of these collections [s]."""
    lines: tuple[StackLine, ...]
    """The innermost first."""


@define(eq=False)
class GarbageProfiler:
    """Measures collections from `start` to `stop`, by ``gc.callbacks``.

    There can be one per process. It costs about a microsecond per collection.
    """

    _causes: dict[tuple[int, ...], _Cause] = field(factory=dict, init=False)
    _generations: list[_Generation] = field(init=False)
    _histogram: list[int] = field(init=False)
    _began: int | None = field(default=None, init=False)
    _started: int | None = field(default=None, init=False)
    _report: GarbageReport | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._generations = [_Generation() for _ in range(_GENERATIONS)]
        self._histogram = [0] * (len(BUCKETS) + 1)

    def start(self) -> None:
        """Begin to measure.

        Raises:
            BusyError: another garbage profile of this process is running.
        """
        if any(
            isinstance(getattr(callback, "__self__", None), GarbageProfiler)
            for callback in gc.callbacks
        ):
            raise BusyError("another garbage profile is running; try later")
        self._started = time.perf_counter_ns()
        gc.callbacks.append(self._on_collection)

    def stop(self) -> GarbageReport:
        """Stop and return the report; called again, return the same report.

        Raises:
            UnavailableError: the profiler was never started.
        """
        if self._report is None:
            if self._started is None:
                raise UnavailableError("no garbage profile was started")
            with suppress(ValueError):  # the application has cleared the list
                gc.callbacks.remove(self._on_collection)
            seconds = (time.perf_counter_ns() - self._started) / 1e9
            self._report = _report(self._generations, self._histogram, seconds)
        return self._report

    def stacks(self) -> tuple[GarbageStack, ...]:
        """Return the stacks that triggered long collections, the most time first."""
        causes = sorted(self._causes.values(), key=lambda one: -one.pause)
        return tuple(
            GarbageStack(
                one.pause / 1e9,
                tuple(
                    StackLine(printable(code.co_filename), line, code.co_qualname)
                    for code, line in one.places
                ),
            )
            for one in causes
        )

    def _on_collection(self, phase: str, info: Mapping[str, Any]) -> None:
        # In the thread that triggered the collection; no other runs in between.
        now = time.perf_counter_ns()
        if phase == "start":
            self._began = now
        elif self._began is not None:  # None: the profile began during a collection
            pause, self._began = now - self._began, None
            generation = self._generations[min(info["generation"], _GENERATIONS - 1)]
            generation.collections += 1
            generation.collected += info["collected"]
            generation.uncollectable += info["uncollectable"]
            generation.pause += pause
            generation.longest = max(generation.longest, pause)
            self._histogram[bisect_left(BUCKETS, pause / 1e9)] += 1
            if pause >= _MIN_PAUSE:
                # The frame that triggered the collection.
                self._record(sys._getframe(1), pause)

    def _record(self, frame: FrameType, pause: int) -> None:
        frames = list(islice(outwards(frame), _MAX_FRAMES))
        # By address, as in the sampler; the entry keeps the code alive.
        key = tuple(chain.from_iterable((id(f.f_code), f.f_lineno) for f in frames))
        if (cause := self._causes.get(key)) is None:
            if len(self._causes) == _MAX_STACKS:
                return
            places = tuple((frame.f_code, frame.f_lineno or 0) for frame in frames)
            cause = self._causes[key] = _Cause(places)
        cause.pause += pause


def _report(
    found: Sequence[_Generation], histogram: Sequence[int], duration: float
) -> GarbageReport:
    generations = tuple(
        GenerationPauses(
            generation=number,
            collections=generation.collections,
            collected=generation.collected,
            uncollectable=generation.uncollectable,
            pause=generation.pause / 1e9,
            longest=generation.longest / 1e9,
        )
        for number, generation in enumerate(found)
    )
    buckets = tuple(
        PauseBucket(up_to=edge, count=count)
        for edge, count in zip((*BUCKETS, None), histogram, strict=True)
    )
    return GarbageReport(
        data=_format(generations, buckets, duration),
        duration=duration,
        collections=sum(g.collections for g in generations),
        pause=sum(g.pause for g in generations),
        longest=max(g.longest for g in generations),
        collected=sum(g.collected for g in generations),
        uncollectable=sum(g.uncollectable for g in generations),
        generations=generations,
        histogram=buckets,
    )


def _format(
    generations: Sequence[GenerationPauses],
    buckets: Sequence[PauseBucket],
    duration: float,
) -> str:
    pause = sum(g.pause for g in generations)
    collections = sum(g.collections for g in generations)
    share = pause / duration if duration else 0.0
    word = "collection" if collections == 1 else "collections"
    lines = [
        f"{collections} {word} in {duration:.3g} s,"
        f" {pause * 1e3:.3g} ms in total ({share:.2%} of the time)",
        "generation  collections      total    longest  collected  uncollectable",
    ]
    lines += [
        f"{g.generation:>10}  {g.collections:>11}  {_ms(g.pause)}  {_ms(g.longest)}"
        f"  {g.collected:>9}  {g.uncollectable:>13}"
        for g in generations
    ]
    if most := max(bucket.count for bucket in buckets):
        lines.append("pauses:")
        lines += [
            f"  {_bucket_line(bucket, most)}" for bucket in buckets if bucket.count
        ]
    return "\n".join(lines)


def _bucket_line(bucket: PauseBucket, most: int) -> str:
    if bucket.up_to is None:
        edge = f"over {BUCKETS[-1] * 1e3:>5.4g} ms"
    else:
        edge = f"to {bucket.up_to * 1e3:>7.4g} ms"
    return f"{edge} {bucket.count:>8}  {'█' * max(1, _BAR * bucket.count // most)}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:>6.1f} ms"
