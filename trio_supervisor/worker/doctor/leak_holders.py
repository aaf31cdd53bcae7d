"""Find which of the application's objects hold the memory that a sample retained."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from trio_supervisor._location import PREFIX
from trio_supervisor.diagnostics.locations import (
    CodeLocation,
    is_application,
    is_package,
)
from trio_supervisor.diagnostics.stacks.frames import short_path
from trio_supervisor.policy.doctor.facts import HolderFacts
from trio_supervisor.policy.doctor.findings import size
from trio_supervisor.wire.memory_reports import Growth, Holding, MemoryReport, Step

_RUNS_THE_TARGET: Final = ("runtimes.py", "instance.py", "main.py")
"""Files of this package whose frames and objects hold the application's."""
_SOURCES: Final = "variable cache of module linecache"
"""Source lines, read for reports like this one."""
_LOCAL: Final = "local variable "
_SUSPENDED: Final = ", of a suspended "
_STEPS: Final = 8
"""Steps shown of a chain."""


def holders_of(report: MemoryReport) -> tuple[HolderFacts, ...]:
    """Return the holders of what was retained or has grown, the largest first.

    Objects of the agent, whose thread calls this, are left out, and those of functions
    that were called in the period: work in progress is no leak.
    """
    by_holder = dict[Step | None, list[Holding | Growth]]()
    found: tuple[Holding | Growth, ...] = (*report.holders, *report.grown)
    for one in found:
        holder = holder_in(one.chain) if one.is_rooted else None
        if not _is_of_this_package(one) and not _is_at_work(holder):
            by_holder.setdefault(holder, []).append(one)
    holders = [_as_holder(holder, held) for holder, held in by_holder.items()]
    return tuple(sorted(holders, key=lambda one: one.memory + one.grown, reverse=True))


def _as_holder(holder: Step | None, held: Sequence[Holding | Growth]) -> HolderFacts:
    new = [one for one in held if isinstance(one, Holding)]
    grown = [one for one in held if isinstance(one, Growth)]
    chain = _lines(max(held, key=_memory))
    return HolderFacts(
        memory=sum(map(_memory, new)),
        count=sum(one.count for one in new),
        grown=sum(map(_memory, grown)),
        chain=chain,
        title=chain[0] if holder is None else _line(holder),
        is_known=holder is not None,
    )


def _memory(one: Holding | Growth) -> int:
    return one.memory if isinstance(one, Holding) else one.now - one.before


def holder_in(chain: Sequence[Step]) -> Step | None:
    """Return the step of *chain*, from a root down, that names the leak.

    That is the old object nearest to the leak that the application defines; else one
    that a package other than an event loop defines. New objects are leaked themselves.
    """
    old = [one for one in chain if one.file is not None and not one.is_new]
    for is_wanted in (is_application, is_package):
        for one in reversed(old):
            if is_wanted(CodeLocation(one.file or "", one.line or 0, "")):
                return one
    return chain[0] if chain else None


def _is_of_this_package(holding: Holding | Growth) -> bool:
    if not holding.chain:
        return False
    root = holding.chain[0]
    agent = f", in {threading.current_thread().name} at line "
    is_own_code = (
        root.file is not None
        and root.file.startswith(PREFIX)
        and not root.file.endswith(_RUNS_THE_TARGET)
    )
    return is_own_code or agent in root.text or root.text == _SOURCES


def _is_at_work(holder: Step | None) -> bool:
    if holder is None or not holder.is_new:
        return False
    return holder.text.startswith(_LOCAL) and _SUSPENDED not in holder.text


def _lines(one: Holding | Growth) -> tuple[str, ...]:
    steps = [_line(step) for step in one.chain[:_STEPS]]
    if isinstance(one, Growth):
        return (*steps, f"a {one.class_name}, {size(_memory(one))} larger than before")
    what = f"{one.count} {one.class_name}, {size(one.memory)}"
    return (*steps, f"{what}, attributed to {short_path(one.location)}")


def _line(step: Step) -> str:
    if step.file is None:
        return step.text
    return f"{step.text} ({short_path(step.file)}:{step.line})"
