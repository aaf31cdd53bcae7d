"""What an examination saw, as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trio_supervisor.policy.doctor.facts import Facts, MainThreadFacts
from trio_supervisor.policy.doctor.findings import size


def looked_at(facts: Facts) -> tuple[str, ...]:
    """Return what was looked at and seen, a line each."""
    return tuple(_looked_at(facts))


def _looked_at(facts: Facts) -> Iterator[str]:
    yield from _main(facts.main)
    yield f"locks: {len(facts.deadlocks)} deadlocks"
    memory = facts.memory
    if memory.resident:
        yield (
            f"memory: {size(memory.resident[-1])} resident, "
            f"{_change(memory.resident, 2**20, ' MiB')}; {size(memory.free)} free"
        )
    if memory.sampled:
        held = memory.holders[0] if memory.holders else None
        what = (
            f"{size(held.memory + held.grown)} at {held.title}" if held else "nothing"
        )
        yield f"new objects in {memory.sampled:.1f} s: the most held is {what}"
    if (garbage := facts.garbage) is not None:
        yield (
            f"garbage: {garbage.collections} collections, {garbage.share:.1%} of the "
            f"time, the longest {garbage.longest * 1e3:.1f} ms"
        )
    descriptors = facts.descriptors
    limit = f" of {descriptors.limit}" if descriptors.limit is not None else ""
    yield f"descriptors: {_counts(descriptors.counts)}{limit}"
    if facts.main.loop is not None:
        yield f"tasks: {_counts(facts.tasks.counts)}"
    yield f"threads: {_counts(facts.threads.counts)}"


def _main(main: MainThreadFacts) -> Iterator[str]:
    used = "" if main.cpu is None else f", {main.cpu:.0%} of a processor"
    queued = f", {main.queued:.1f} s without one" if main.queued >= 0.1 else ""
    yield f"main thread: ran in {main.running:.0%} of the looks{used}{queued}"
    if main.place:
        yield f"  most often ({main.share:.0%}) at {main.place}"
    if main.loop is None:
        yield "  no event loop: whether it waits for work or in vain, nobody can tell"
    elif main.stalls:
        yield (
            f"{main.loop} loop: late {main.stalls} times, by up to {main.longest:.2f} s"
        )
    else:
        yield f"{main.loop} loop: never late"


def _counts(counts: Sequence[int]) -> str:
    return f"{counts[-1]} ({_change(counts)})" if counts else "not counted"


def _change(series: Sequence[int], unit: int = 1, name: str = "") -> str:
    change = series[-1] - series[0]
    return f"{change / unit:+.1f}{name}" if unit > 1 else f"{change:+d}"
