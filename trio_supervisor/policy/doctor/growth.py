"""What a worker has more and more of: memory, descriptors, tasks, threads."""

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
from trio_supervisor.policy.doctor.findings import Certainty, Finding, Severity, size

LEAK = 64 * 1024
"""New and retained [bytes]: what is under way in a healthy worker is mostly less."""
LEAK_RATE = 16 * 1024
"""Retained in a second [bytes]: more than a gibibyte a day."""
BACKED = 0.5
"""Part of what is retained by which the heap must have grown: else as much went."""
RESIDENT = 8 * 1024 * 1024
"""Growth of the resident memory that is not explained by a pool of an allocator, which
takes 1 MiB (Python) or up to 4 MiB (glibc) at a time [bytes]."""
SOON = 600.0
"""Who hears of it now can still do something [s]; and a rate that was measured in
seconds says little of hours."""
LITTLE = 32 * 1024 * 1024
"""Free memory that one request more may take [bytes]."""
DESCRIPTORS = 5
"""Descriptors more: fewer come and go by themselves, as those of a log that rotates."""
HUNG_UP = 20
"""Connections that the peer has closed: a few are about to be noticed."""
FULL = 0.9
"""Part of the descriptors allowed from which on it gets dangerous."""
TASKS = 10
"""Tasks more."""
THREADS = 8
"""Threads more: a pool that warms up begins with fewer."""


def find_growth(facts: Facts) -> Iterator[Finding]:
    """Return what becomes more, or is running out."""
    yield from _tasks(facts)
    yield from _threads(facts)
    yield from _leak(facts)
    yield from _descriptors(facts)
    yield from _memory(facts)


def _tasks(facts: Facts) -> Iterator[Finding]:
    if has_risen(facts.tasks.counts, TASKS):
        yield _crowd(
            facts,
            "tasks",
            facts.tasks,
            "See whether what they wait for ever comes, give it a deadline, and limit "
            "how many there may be. `scheduler-dump NAME` shows them all.",
        )


def _threads(facts: Facts) -> Iterator[Finding]:
    if has_risen(facts.threads.counts, THREADS):
        yield _crowd(
            facts,
            "threads",
            facts.threads,
            "Use a pool of threads with a limit, and see whether what they wait for "
            "ever comes. `thread-dump NAME` shows them all.",
        )


def _crowd(facts: Facts, kind: str, crowd: GrowthFacts, advice: str) -> Finding:
    first, *_, last = crowd.counts
    return Finding(
        kind=kind,
        title=f"there are more and more {kind}: {last} now",
        text=f"{last - first} more in {facts.duration:.1f} s: they are started faster "
        "than they end, or never end.",
        evidence=crowd.grown,
        advice=advice,
        severity=Severity.TROUBLE,
        certainty=Certainty.LIKELY,
    )


def leaking(facts: Facts) -> HolderFacts | None:
    """Return who holds the most of what is retained, if that is a leak's amount."""
    memory = facts.memory
    if not memory.holders or not memory.sampled:
        return None
    one = memory.holders[0]
    is_much = one.memory + one.grown >= max(LEAK, LEAK_RATE * memory.sampled)
    return one if is_much and _is_backed(memory, one) else None


def _is_backed(memory: MemoryFacts, holder: HolderFacts) -> bool:
    """Whether the heap has grown for it: new objects in the place of old are no leak.

    What goes up and down hides a slow leak, which a longer examination finds: a leak
    grows with the time. A pool of an allocator may be taken at any time, so that the
    resident memory says something only where it grows by several. What has grown may
    be a buffer that is emptied again; of that the blocks tell nothing.
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
        known = holder.is_known
        yield Finding(
            kind="leak",
            title=f"it leaks: {holder.title}" if known else "it leaks",
            text=f"In {memory.sampled:.1f} s it came to hold {_amounts(holder)}, "
            f"{size(rate)} a second. Or it is a cache that still fills: then it ends "
            "by itself.",
            evidence=(*holder.chain, resident),
            advice="Give it a limit, or remove what is done with. `memory-sample NAME "
            "--duration 30` shows more, and what it is that stays.",
            severity=severity,
            certainty=Certainty.LIKELY,
        )
    elif has_risen(memory.resident, RESIDENT):
        yield Finding(
            kind="leak",
            title="its memory grows, and no new Python object explains it",
            text="C code may leak, or keep what it once needed; or objects that were "
            "there before have grown by too little to be sure of.",
            evidence=(resident,),
            advice="`memory-sample NAME --duration 30` looks for longer; what C code "
            "allocates only a tool as memray shows.",
            severity=severity,
            certainty=Certainty.POSSIBLE,
        )


def _amounts(holder: HolderFacts) -> str:
    new = (
        f"{size(holder.memory)} in {holder.count} new objects that no collection frees"
    )
    grown = f"{size(holder.grown)} by which what it had has grown"
    found = (new, holder.count), (grown, holder.grown)
    return " and ".join(text for text, is_there in found if is_there) or "nothing"


def _descriptors(facts: Facts) -> Iterator[Finding]:
    found = facts.descriptors
    total = found.counts[-1] if found.counts else 0
    is_full = found.limit is not None and total >= FULL * found.limit
    has_grown = has_risen(found.counts, DESCRIPTORS)
    if not (is_full or has_grown or found.hung_up >= HUNG_UP):
        return
    text = f"There are {total}"
    text += f" of {found.limit} allowed." if found.limit is not None else "."
    if has_grown:
        more = total - found.counts[0]
        text += f" In {facts.duration:.1f} s they became {more} more."
    if found.hung_up >= HUNG_UP:
        text += f" {found.hung_up} are connections that the peer has closed long since."
    leaks = has_grown or found.hung_up >= HUNG_UP
    yield Finding(
        kind="descriptors",
        title="it leaks descriptors" if leaks else "hardly any descriptors are left",
        text=text,
        evidence=found.grown,
        advice="Close them where they were opened, by `with`; see whether many clients "
        "just connect. `call NAME descriptors` shows what is open.",
        severity=Severity.DANGER if is_full else Severity.TROUBLE,
        certainty=Certainty.SURE if is_full else Certainty.LIKELY,
    )


def time_left(facts: Facts) -> float | None:
    """Return after how long there is no memory left [s]; None: not soon."""
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
    when = f"in {left:.0f} s" if left else "now"
    yield Finding(
        kind="memory",
        title=f"out of memory {when}" if left else "hardly any memory is left",
        text=f"It can get {size(memory.free)} more, of the host and within its limits"
        + (", and grows faster than that lasts." if left else "."),
        evidence=(f"resident memory: {size(memory.resident[-1])}",)
        if memory.resident
        else (),
        advice="`restart NAME` before the kernel kills it; a MemoryMonitor with a "
        "limit does that in time. `memory-sample NAME` shows who holds it.",
        severity=Severity.DANGER,
        certainty=Certainty.SURE if not left else Certainty.LIKELY,
    )
