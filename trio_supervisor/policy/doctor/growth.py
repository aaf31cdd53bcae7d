"""Find what a worker accumulates: memory, file descriptors, tasks, threads."""

from __future__ import annotations

from collections.abc import Iterator

from trio_supervisor.policy.doctor.facts import (
    Facts,
    GrowthFacts,
    HolderFacts,
    MemoryFacts,
    growth,
    has_risen,
)
from trio_supervisor.policy.doctor.findings import size
from trio_supervisor.wire.diagnosis import Certainty, Finding, Severity

LEAK = 64 * 1024
"""New and retained [bytes]: requests in progress in a healthy worker retain less."""
LEAK_RATE = 16 * 1024
"""Retained per second [bytes]: more than a gibibyte per day."""
BACKED = 0.5
"""Part of the retained memory by which the heap must have grown: otherwise as much was
freed."""
RESIDENT = 8 * 1024 * 1024
"""Growth of the resident memory that an allocator's pool does not explain: pools grow
by 1 MiB (Python) or up to 4 MiB (glibc) at a time [bytes]."""
SOON = 600.0
"""An operator who is warned so early can still act [s]; a rate that was measured over
seconds says little about hours."""
LITTLE = 32 * 1024 * 1024
"""Free memory that a single request may use up [bytes]."""
DESCRIPTORS = 5
"""Additional descriptors: fewer come and go, such as those of a rotating log."""
HUNG_UP = 20
"""Connections that the peer has closed: a worker may not yet have noticed a few."""
FULL = 0.9
"""Share of RLIMIT_NOFILE from which on the worker may soon run out."""
TASKS = 10
"""Additional tasks."""
THREADS = 8
"""Additional threads: a thread pool that warms up starts fewer."""


def find_growth(facts: Facts) -> Iterator[Finding]:
    """Return what grows, or is running out."""
    yield from _tasks(facts)
    yield from _threads(facts)
    yield from _leak(facts)
    yield from _descriptors(facts)
    yield from _memory(facts)


def _tasks(facts: Facts) -> Iterator[Finding]:
    if has_risen(facts.tasks.counts, TASKS):
        yield _growing(
            facts,
            "tasks",
            facts.tasks,
            "Check whether what they wait for ever happens, give each wait a deadline, "
            "and limit the number of tasks. `scheduler-dump NAME` shows all tasks.",
        )


def _threads(facts: Facts) -> Iterator[Finding]:
    if has_risen(facts.threads.counts, THREADS):
        yield _growing(
            facts,
            "threads",
            facts.threads,
            "Use a thread pool of bounded size, and check whether what they wait for "
            "ever happens. `thread-dump NAME` shows all threads.",
        )


def _growing(facts: Facts, kind: str, found: GrowthFacts, advice: str) -> Finding:
    first, *_, last = found.counts
    return Finding(
        kind=kind,
        title=f"the number of {kind} keeps growing: {last} now",
        text=f"{last - first} more in {facts.duration:.1f} s: they start faster than "
        "they finish, or never finish.",
        evidence=found.grown,
        advice=advice,
        severity=Severity.TROUBLE,
        certainty=Certainty.LIKELY,
    )


def leaking(facts: Facts) -> HolderFacts | None:
    """Return the largest holder of retained memory, if it holds enough for a leak."""
    memory = facts.memory
    if not memory.holders or not memory.sampled:
        return None
    one = memory.holders[0]
    is_much = one.memory + one.grown >= max(LEAK, LEAK_RATE * memory.sampled)
    return one if is_much and _is_backed(memory, one) else None


def _is_backed(memory: MemoryFacts, holder: HolderFacts) -> bool:
    """Return whether the heap has grown too: replaced objects are no leak.

    Fluctuation hides a slow leak, which a longer examination finds: a leak grows with
    time. An allocator may take a pool at any time, so growth of the resident memory
    counts only from several pools on. What has grown may be a buffer that is emptied
    later; the number of blocks says nothing about that.
    """
    blocks, resident = BACKED * holder.count, BACKED * (holder.memory + holder.grown)
    is_new = holder.memory >= holder.grown
    return (is_new and has_risen(memory.blocks, round(blocks))) or has_risen(
        memory.resident, max(RESIDENT, round(resident))
    )


def _leak(facts: Facts) -> Iterator[Finding]:
    memory = facts.memory
    grown = memory.resident[-1] - memory.resident[0] if memory.resident else 0
    resident = f"resident memory {grown / 2**20:+.1f} MiB in {facts.duration:.1f} s"
    severity = Severity.DANGER if time_left(facts) is not None else Severity.TROUBLE
    if (holder := leaking(facts)) is not None:
        rate = round((holder.memory + holder.grown) / memory.sampled)
        yield Finding(
            kind="leak",
            title=f"memory leak: {holder.title}" if holder.is_known else "memory leak",
            text=f"In {memory.sampled:.1f} s it retained {_amounts(holder)}: "
            f"{size(rate)} per second. A cache that is still filling looks the same, "
            "but stops growing.",
            evidence=(*holder.chain, resident),
            advice="Bound its size, or remove entries you no longer need. "
            "`memory-sample NAME --duration 30` shows which objects are retained.",
            severity=severity,
            certainty=Certainty.LIKELY,
        )
    elif has_risen(memory.resident, RESIDENT):
        yield Finding(
            kind="leak",
            title="memory grows, but no new Python objects account for it",
            text="C code may leak or keep freed memory, or existing objects have grown "
            "by too little to be identified.",
            evidence=(resident,),
            advice="`memory-sample NAME --duration 30` observes for longer. Only a "
            "tool such as memray shows what C code allocates.",
            severity=severity,
            certainty=Certainty.POSSIBLE,
        )


def _amounts(holder: HolderFacts) -> str:
    new = (
        f"{size(holder.memory)} in {holder.count} new objects that survived garbage "
        "collection"
    )
    grown = f"{size(holder.grown)} of growth in existing objects"
    found = (new, holder.count), (grown, holder.grown)
    return " and ".join(text for text, is_there in found if is_there) or "nothing"


def _descriptors(facts: Facts) -> Iterator[Finding]:
    found = facts.descriptors
    total = found.counts[-1] if found.counts else 0
    is_full = found.limit is not None and total >= FULL * found.limit
    has_grown = has_risen(found.counts, DESCRIPTORS)
    if not (is_full or has_grown or found.hung_up >= HUNG_UP):
        return
    text = f"{total} file descriptors are open"
    text += f" (limit {found.limit})." if found.limit is not None else "."
    if has_grown:
        more = total - found.counts[0]
        text += f" The number grew by {more} in {facts.duration:.1f} s."
    if found.hung_up >= HUNG_UP:
        text += (
            f" {found.hung_up} are connections that the peer closed before this "
            "examination began."
        )
    leaks = has_grown or found.hung_up >= HUNG_UP
    yield Finding(
        kind="descriptors",
        title="file descriptor leak" if leaks else "almost out of file descriptors",
        text=text,
        evidence=found.grown,
        advice="Close them where they are opened, with a `with` block; check whether "
        "many clients are just connected. `call NAME descriptors` shows what is open.",
        severity=Severity.DANGER if is_full else Severity.TROUBLE,
        certainty=Certainty.SURE if is_full else Certainty.LIKELY,
    )


def time_left(facts: Facts) -> float | None:
    """Return the time until memory runs out [s]; None: not soon."""
    memory = facts.memory
    if memory.free < LITTLE:
        return 0.0
    if not has_risen(memory.resident, RESIDENT):
        return None
    left = memory.free * (facts.duration / 2) / growth(memory.resident)
    return left if left < SOON else None


def _memory(facts: Facts) -> Iterator[Finding]:
    memory = facts.memory
    if (left := time_left(facts)) is None:
        return
    yield Finding(
        kind="memory",
        title=f"out of memory in {left:.0f} s" if left else "almost out of memory",
        text=f"Only {size(memory.free)} more can be allocated, on the host and within "
        "the process's limits" + (", and memory keeps growing." if left else "."),
        evidence=(f"resident memory: {size(memory.resident[-1])}",)
        if memory.resident
        else (),
        advice="`restart NAME` before the kernel kills it; a MemoryMonitor with a "
        "limit does so in time. `memory-sample NAME` shows what retains the memory.",
        severity=Severity.DANGER,
        certainty=Certainty.SURE if not left else Certainty.LIKELY,
    )
