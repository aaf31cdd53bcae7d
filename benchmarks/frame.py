"""Take series of measurements in turns, and format the results."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import math
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeAlias

from attrs import asdict, define, field, frozen

from benchmarks.targets import TARGETS, Target

Probe: TypeAlias = Callable[[], Awaitable[float]]
"""Takes one measurement and returns it in the unit of its row."""

_PACKAGES: Final = ("trio_supervisor", "trio", "anyio", "attrs", "cattrs", "orjson")


@frozen(kw_only=True)
class Options:
    """How much to measure."""

    repeats: int = 30
    is_quick: bool = False
    """Whether this is a smoke test: few of everything; its figures mean nothing."""

    def count(self, wanted: int, quick: int = 4) -> int:
        """Return *wanted*, or at most *quick* in a smoke test."""
        return min(wanted, quick) if self.is_quick else wanted


@frozen(kw_only=True)
class Row:
    """One figure and, if it has one, the floor measured in turns with it."""

    entry: str
    name: str
    unit: str
    samples: tuple[float, ...]
    floor_name: str = ""
    floor_samples: tuple[float, ...] = ()
    note: str = ""

    @property
    def median(self) -> float:
        """Median of the figure."""
        return median(self.samples)

    @property
    def p99(self) -> float:
        """99th percentile: the slow end, also of a rate; the worst of few samples."""
        return percentile(self.samples, 1 if self.unit.endswith("/s") else 99)

    @property
    def floor(self) -> float | None:
        """Median of the floor."""
        return median(self.floor_samples) if self.floor_samples else None

    @property
    def ratio(self) -> float | None:
        """Median over the floor's median."""
        return self.median / self.floor if self.floor else None

    @property
    def target(self) -> Target | None:
        """Target of the figure; None: it has none."""
        return TARGETS.get(self.name)

    @property
    def is_reached(self) -> bool | None:
        """Whether the target was reached; None: there is no target."""
        if (target := self.target) is None:
            return None
        return target.is_reached(median=self.median, p99=self.p99, floor=self.floor)

    def to_json(self) -> dict[str, Any]:
        """Return samples and figures as JSON values."""
        target = self.target
        return {
            **asdict(self),
            "median": self.median,
            "p99": self.p99,
            "floor": self.floor,
            "ratio": self.ratio,
            "target": None if target is None else str(target),
            "is_reached": self.is_reached,
        }


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the smallest sample that *percent* of all do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


@define(eq=False)
class Frame:
    """The rows of one run."""

    options: Options
    entry: str = ""
    """Name of the benchmark that adds rows."""
    rows: list[Row] = field(factory=list, init=False)
    skipped: dict[str, str] = field(factory=dict, init=False)
    """Reasons for skipped rows, by name."""

    async def measure(
        self,
        name: str,
        probe: Probe,
        *,
        unit: str = "ms",
        floor: tuple[str, Probe] | None = None,
        repeats: int | None = None,
        note: str = "",
    ) -> Row:
        """Run *probe* and *floor* in turns, and add a row.

        In turns, because what slows the machine down then slows both down.
        """
        series = {name: probe}
        floors = {name: floor[0]} if floor else {}
        if floor:
            series[floor[0]] = floor[1]
        taken = await self.take(series, repeats=repeats)
        return self.add(name, taken, unit=unit, floor=floors.get(name, ""), note=note)

    async def take(
        self, series: Mapping[str, Probe], *, repeats: int | None = None
    ) -> dict[str, tuple[float, ...]]:
        """Run all of *series* in turns, *repeats* times; return the samples of each."""
        taken: dict[str, list[float]] = {name: [] for name in series}
        for _ in range(repeats or self.options.repeats):
            for name, probe in series.items():
                gc.collect()  # keep our own collections out of the measurement
                taken[name].append(await probe())
        return {name: tuple(samples) for name, samples in taken.items()}

    def add(
        self,
        name: str,
        taken: Mapping[str, tuple[float, ...]],
        *,
        unit: str = "ms",
        floor: str = "",
        note: str = "",
    ) -> Row:
        """Add the row *name*, with the series *floor* as its floor; print it."""
        row = Row(
            entry=self.entry,
            name=name,
            unit=unit,
            samples=taken[name],
            floor_name=floor,
            floor_samples=taken.get(floor, ()),
            note=note,
        )
        self.rows.append(row)
        print(format_rows([row]), end="", file=sys.stderr, flush=True)
        return row

    def skip(self, name: str, why: str) -> None:
        """Record that *name* is not measured."""
        self.skipped[name] = why
        print(f"{name}: skipped: {why}", file=sys.stderr, flush=True)


_HEADER: Final = (
    "what",
    "floor",
    "median",
    "p99",
    "unit",
    "ratio",
    "target",
    "reached",
)


def format_table(rows: Sequence[Row]) -> str:
    """Return *rows* as a Markdown table."""
    cells = [_HEADER, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(row, widths) for row in cells]
    rule = "|".join(["", *("-" * (width + 2) for width in widths), ""])
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def format_rows(rows: Sequence[Row]) -> str:
    """Return *rows* as lines of text, to be printed as progress."""
    text = ""
    for row in rows:
        cells = dict(zip(_HEADER, _cells(row), strict=True))
        text += f"{row.name}: {cells['median']} {row.unit} (p99 {cells['p99']})"
        if row.floor is not None:
            text += f"; {cells['ratio']} x {row.floor_name} ({cells['floor']})"
        text += "\n"
    return text


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"


def _cells(row: Row) -> tuple[str, ...]:
    words = {True: "yes", False: "NO", None: "-"}
    return (
        row.name,
        format_figure(row.floor),
        format_figure(row.median),
        format_figure(row.p99),
        row.unit,
        format_figure(row.ratio),
        "-" if row.target is None else str(row.target),
        words[row.is_reached],
    )


def format_figure(value: float | None) -> str:
    """Return *value* with three significant digits."""
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value:,.0f}"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}"


def format_comparison(rows: Sequence[Row], before: Mapping[str, Any]) -> str:
    """Return the median of each row beside that of an earlier run."""
    earlier = {row["name"]: row for row in before["rows"]}
    lines = [f"compared with {before['started']}, ratios to the floor in brackets"]
    for row in rows:
        if (old := earlier.get(row.name)) is None:
            lines.append(f"{row.name}: new")
            continue
        change = row.median / old["median"] - 1 if old["median"] else 0.0
        lines.append(
            f"{row.name}: {format_figure(old['median'])} "
            f"[{format_figure(old['ratio'])}] → {format_figure(row.median)} "
            f"[{format_figure(row.ratio)}] {row.unit}, {change:+.0%}"
        )
    return "\n".join(lines) + "\n"


def describe_machine() -> dict[str, Any]:
    """Return the properties of the machine that figures depend on."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def write_results(path: Path, frame: Frame, started: str) -> None:
    """Write samples, figures and machine to *path* as JSON."""
    document = {
        "started": started,
        "options": asdict(frame.options),
        "machine": describe_machine(),
        "rows": [row.to_json() for row in frame.rows],
        "skipped": frame.skipped,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
