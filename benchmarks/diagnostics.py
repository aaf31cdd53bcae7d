"""Measure how long diagnostics pause a worker, and what the stall watch costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define

from benchmarks.diagnosed import BUSY, LOOKS
from benchmarks.frame import Frame
from benchmarks.serving import environment

_SIZES = (100_000, 1_000_000, 5_000_000)
# These take half a minute on the largest heap.
_SLOW = ("pympler muppy", "pympler tracker")
_REPEATS = 5


async def run(frame: Frame) -> None:
    """Measure the longest gap of a 1 ms ticker and the duration of each operation."""
    with _open_diagnosed(10_000) as process:
        repeats = frame.options.repeats
        taken = [process.look(BUSY) for _ in range(repeats)]
        alone, watched = "rounds of a busy loop", "the same, watched for stalls"
        rates = {
            alone: tuple(rate for rate, _ in taken),
            watched: tuple(rate for _, rate in taken),
        }
        frame.add(watched, rates, unit="/s", floor=alone)
    for count in (10_000,) if frame.options.is_quick else _SIZES:
        with _open_diagnosed(count) as process:
            for look in LOOKS:
                is_slow = look in _SLOW and count > 100_000
                repeats = 1 if is_slow or frame.options.is_quick else _REPEATS
                taken = [process.look(look) for _ in range(repeats)]
                gap = f"{look}: longest gap, {count:.0e} objects"
                frame.add(gap, {gap: tuple(gap for gap, _ in taken)})
                took = f"{look}: takes, {count:.0e} objects"
                frame.add(took, {took: tuple(took for _, took in taken)})


@define(eq=False)
class _Diagnosed:
    """A process that is diagnosed."""

    _process: subprocess.Popen[str]

    def look(self, name: str) -> tuple[float, float]:
        """Return the longest gap of its main loop and the operation's duration [ms]."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        gap, took = self._process.stdout.readline().split()
        return float(gap), float(took)


@contextmanager
def _open_diagnosed(count: int) -> Iterator[_Diagnosed]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.diagnosed", str(count)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield _Diagnosed(process)
        process.stdin.close()
        process.wait(60)
