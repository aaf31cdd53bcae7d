"""Format memory samples, heap summaries and comparisons as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from trio_supervisor.wire.memory_reports import (
    Amount,
    Growth,
    HeapComparison,
    HeapSummary,
    Holding,
    MemoryReport,
    ObjectGroup,
)

_SHOWN: Final = 15
"""Groups shown of one grouping."""
_HOLDINGS: Final = 5
"""Holders shown."""


def describe_sample(report: MemoryReport) -> str:
    """Return a `MemoryReport` as text."""
    pauses = report.pauses
    lines = [
        f"Retained after {report.duration:.1f} s: {amount(report.total_retained)}",
        f"Net allocation: {amount(report.total_allocated)}; garbage collected: "
        f"{report.collected} objects in {sum(report.collections)} collections",
        f"Pauses: {pauses.start * 1000:.1f} ms (first fork), "
        f"{pauses.collection * 1000:.1f} ms (garbage collection), "
        f"{pauses.end * 1000:.1f} ms (second fork)",
        "",
        "Largest retained groups, with the references that keep them alive:",
        *(line for one in report.holders[:_HOLDINGS] for line in _holding(one)),
    ]
    if report.grown:
        lines += ["", "Existing objects that have grown the most:"]
        lines += (line for one in report.grown[:_HOLDINGS] for line in _growth(one))
    for title, groups in (
        ("package", report.by_package),
        ("file", report.by_file),
        ("location", report.by_location),
        ("class", report.by_class),
        ("string", report.strings),
    ):
        lines += ["", f"By {title}:", *_table(groups)]
    return "\n".join([*lines, "", *report.notes])


def describe_summary(summary: HeapSummary) -> str:
    """Return a `HeapSummary` as text."""
    return "\n".join(
        [
            f"{summary.path}: {amount(summary.total)}, process {summary.process_id}",
            *("", "By type:", *_table(summary.by_type)),
            *("", "By module:", *_table(summary.by_module)),
        ]
    )


def describe_comparison(found: HeapComparison) -> str:
    """Return a `HeapComparison` as text."""
    lines = [
        f"New in {found.paths[1]}: {amount(found.new)}; freed: {amount(found.gone)}",
        *("", "Growth by type, from the first dump to the last:", *_table(found.grown)),
        *("", "New objects by type:", *_table(found.new_by_type)),
    ]
    if found.stayed is not None:
        stayed = amount(found.stayed)
        lines += ["", f"Of these, still in {found.paths[2]}: {stayed}"]
        lines += ["", "Retained by type:", *_table(found.stayed_by_type)]
    return "\n".join(lines)


def amount(one: Amount | ObjectGroup) -> str:
    """Return memory and a count as text."""
    return f"{size(one.memory)} in {one.count} objects"


def size(memory: int) -> str:
    """Return a number of bytes as text."""
    value = float(memory)
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _holding(one: Holding) -> Iterator[str]:
    yield f"  {size(one.memory)} in {one.count} {one.class_name}, at {one.location}"
    yield from _chain(one)


def _growth(one: Growth) -> Iterator[str]:
    grown = size(one.now - one.before)
    yield f"  one {one.class_name} grew by {grown}, to {size(one.now)}"
    yield from _chain(one)


def _chain(one: Holding | Growth) -> Iterator[str]:
    if not one.is_rooted:
        yield "    no Python object refers to it; C code may"
    for step in one.chain:
        place = f"  ({step.file}:{step.line})" if step.file else ""
        yield f"    {step.text}{place}"


def _table(groups: Iterable[ObjectGroup]) -> Iterator[str]:
    shown = list(groups)
    for group in shown[:_SHOWN]:
        yield f"  {size(group.memory):>10} {group.count:>9}  {group.name}"
    if len(shown) > _SHOWN:
        yield f"  and {len(shown) - _SHOWN} more"
    if not shown:
        yield "  nothing"
