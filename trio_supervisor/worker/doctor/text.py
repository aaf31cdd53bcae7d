"""Summarize the facts of an examination, one line per area."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trio_supervisor.policy.doctor.facts import Facts, MainThreadFacts
from trio_supervisor.policy.doctor.findings import size


def examined_areas(facts: Facts) -> tuple[str, ...]:
    """Return one line per area that was examined, with its figures."""
    return tuple(_areas(facts))


def _areas(facts: Facts) -> Iterator[str]:
    yield from _main(facts.main)
    deadlocks = _plural(len(facts.deadlocks), "deadlock")
    yield f"locks: {deadlocks}"
    memory = facts.memory
    if memory.resident:
        yield (
            f"memory: {size(memory.resident[-1])} resident, "
            f"{_change(memory.resident, 2**20, ' MiB')}; {size(memory.free)} free"
        )
    if memory.sampled:
        held = memory.holders[0] if memory.holders else None
        what = (
            f"most: {size(held.memory + held.grown)} by {held.title}"
            if held
            else "none"
        )
        yield f"memory retained in {memory.sampled:.1f} s: {what}"
    if (garbage := facts.garbage) is not None:
        yield (
            f"garbage: {_plural(garbage.collections, 'collection')}, "
            f"{garbage.share:.1%} of the time, longest {garbage.longest * 1e3:.1f} ms"
        )
    descriptors = facts.descriptors
    limit = f", limit {descriptors.limit}" if descriptors.limit is not None else ""
    yield f"descriptors: {_counts(descriptors.counts)}{limit}"
    if facts.main.loop is not None:
        yield f"tasks: {_counts(facts.tasks.counts)}"
    yield f"threads: {_counts(facts.threads.counts)}"


def _main(main: MainThreadFacts) -> Iterator[str]:
    used = "" if main.cpu is None else f", {main.cpu:.0%} of a CPU"
    queued = f", waited {main.queued:.1f} s for a CPU" if main.queued >= 0.1 else ""
    yield f"main thread: running in {main.running:.0%} of the samples{used}{queued}"
    if main.place:
        yield f"  most often ({main.share:.0%}) at {main.place}"
    if main.loop is None:
        yield "  no event loop: waiting for work and hanging look the same"
    elif main.stalls:
        times = _plural(main.stalls, "time")
        yield f"{main.loop} loop: blocked {times}, longest {main.longest:.2f} s"
    else:
        yield f"{main.loop} loop: never blocked"


def _counts(counts: Sequence[int]) -> str:
    return f"{counts[-1]} ({_change(counts)})" if counts else "not counted"


def _change(series: Sequence[int], unit: int = 1, name: str = "") -> str:
    change = series[-1] - series[0]
    return f"{change / unit:+.1f}{name}" if unit > 1 else f"{change:+d}"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
