"""Measure what may not grow, and decide whether it has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil
from attrs import define, field

from tests.kits.serving import Serving, count_descriptors, describe, find_guardian
from trio_supervisor.policy.leak import slope_of

MEBIBYTE: Final = 2**20
TOLERANCES: Final = {
    # The C library's allocator keeps more for some minutes: the controller had 1.6 MiB
    # more after five, in which what Python had allocated (tracemalloc) stayed the same.
    "memory": 4.0 * MEBIBYTE,
    "descriptors": 3.0,
    "threads": 2.0,
    "files": 4.0,
    "processes": 3.0,
}
"""Growth of each kind of figure that is not reported, such as a cache that fills."""
_WARM_UP: Final = 1 / 2
"""Part of a run that is not judged: buffers of output and events fill in it."""
_FEWEST: Final = 12
_SHORTEST: Final = 150.0
"""Time that is judged at least [s]."""


def take_figures(serving: Serving, supervisor: int) -> dict[str, float]:
    """Return the figures of now, such as those of ``"controller: memory"``."""
    figures: dict[str, float] = {
        "files": _count_files(serving.directory),
        "processes": len(serving.process_ids()),
    }
    for role, process_id in _processes(serving, supervisor).items():
        try:
            process = psutil.Process(process_id)
            figures[f"{role}: memory"] = process.memory_info().rss
            figures[f"{role}: descriptors"] = count_descriptors(process_id)
            figures[f"{role}: threads"] = process.num_threads()
        except (psutil.Error, OSError):  # it is being replaced
            continue
    return figures


def _count_files(directory: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(directory))


def _processes(serving: Serving, supervisor: int) -> dict[str, int]:
    found = {"controller": serving.process.pid, "supervisor": supervisor}
    if (guardian := find_guardian(serving)) is not None:
        found["guardian"] = guardian
    for process_id in serving.process_ids():
        words = describe(process_id)
        if "fork server" in words and "spare" not in words and "standby" not in words:
            found.setdefault("fork server", process_id)
    return found


@define(eq=False)
class Series:
    """The figures of all rounds."""

    points: dict[str, list[tuple[float, float]]] = field(factory=dict, init=False)
    """Moment [s] and value, by the name of the figure."""

    def add(self, moment: float, figures: Mapping[str, float]) -> None:
        """Add the figures of a round."""
        for name, value in figures.items():
            self.points.setdefault(name, []).append((moment, value))

    def growing(self) -> list[str]:
        """Return which figures grow, and by how much; none during the warm-up.

        A figure grows if its median slope (Theil-Sen) is positive with confidence, and
        comes to more than its tolerance over the time that is judged.
        """
        found = (_growth(name, points) for name, points in self.points.items())
        return [text for text in found if text]


def _growth(name: str, points: list[tuple[float, float]]) -> str:
    judged = points[round(len(points) * _WARM_UP) :]
    if len(judged) < _FEWEST or (slope := slope_of(judged)) is None:
        return ""
    kind = name.rpartition(": ")[2]
    seconds = judged[-1][0] - judged[0][0]
    if seconds < _SHORTEST:
        return ""
    growth = slope.middle * seconds
    if slope.low <= 0 or growth <= TOLERANCES[kind]:
        return ""
    unit = " MiB" if kind == "memory" else ""
    scale = MEBIBYTE if kind == "memory" else 1
    return (
        f"{name} grew by {growth / scale:.1f}{unit} in {seconds:.0f} s, "
        f"from {judged[0][1] / scale:.1f} to {judged[-1][1] / scale:.1f}"
    )


def summary(series: Series) -> list[str]:
    """Return a line for each figure: its first value, its last, and the largest."""
    lines = []
    for name, points in sorted(series.points.items()):
        scale = MEBIBYTE if name.endswith("memory") else 1
        first, last = points[0][1] / scale, points[-1][1] / scale
        most = max(value for _, value in points) / scale
        lines.append(f"  {name}: {first:.1f} -> {last:.1f} (at most {most:.1f})")
    return lines
