"""Find why a worker makes no progress: deadlock, blocked loop, endless loop, GC."""

from __future__ import annotations

from collections.abc import Iterator

from trio_supervisor.policy.doctor.facts import DeadlockFacts, Facts, MainThreadFacts
from trio_supervisor.wire.diagnosis import Certainty, Finding, Severity

STUCK = 1.0
"""An event loop that is blocked for so long serves no client [s]."""
WHOLE = 0.9
"""Share of the examination for which a stuck loop was blocked: below, it only lags."""
BUSY = 0.2
"""CPU share of a thread that computes, even where many want the CPU. A thread that
polls with short sleeps uses a tenth of it."""
SOME = 0.03
"""CPU share that is enough where all samples saw the thread running, among many threads
that want the GIL. C code that only seems to run uses none."""
ALWAYS = 0.9
"""Share of samples that counts as "always": some hit the code around a loop."""
QUEUED = 0.1
"""Time without a CPU that is worth reporting [s]."""
LAG = 0.25
"""Clients notice when the event loop is blocked for so long [s]."""
GARBAGE = 0.2
"""Share of the time in garbage collection: programs that allocate much need a tenth."""


def find_standstill(facts: Facts) -> Iterator[Finding]:
    """Return what keeps the worker from making progress."""
    yield from _deadlocks(facts)
    yield from _main_thread(facts)
    yield from _garbage(facts)


def _deadlocks(facts: Facts) -> Iterator[Finding]:
    for one in facts.deadlocks:
        yield Finding(
            kind="deadlock",
            title=f"deadlock of {', '.join(one.threads)}",
            text=_deadlock_text(one),
            evidence=one.lines,
            advice="Acquire these locks in the same order everywhere. The worker needs "
            "a restart: `restart NAME`. `call NAME lock-dump` shows all locks that "
            "threads wait for, `thread-dump NAME --locals` their stacks.",
            severity=Severity.STANDSTILL if one.has_main else Severity.DANGER,
            certainty=Certainty.SURE if one.is_sure else Certainty.LIKELY,
        )


def _deadlock_text(one: DeadlockFacts) -> str:
    first, *others = one.threads
    cycle = ", which waits for ".join((*others, first))
    text = f"{first} waits for {cycle}. None of these threads can ever continue."
    if one.has_main:
        text += " The main thread is one of them: the whole worker is blocked."
    return text


def _main_thread(facts: Facts) -> Iterator[Finding]:
    main = facts.main
    if any(one.has_main for one in facts.deadlocks):
        return  # the deadlock is the cause
    if main.loop is None:
        yield from _plain_function(facts)
    elif main.silent >= STUCK and main.silent >= WHOLE * facts.duration:
        what = f"The event loop has been blocked for {main.silent:.1f} s."
        if works(facts):
            yield _spinning(main, what, Certainty.SURE)
        else:
            yield _stuck(main, what)
    elif main.longest - main.queued >= LAG:
        # Time without a CPU is not the fault of the worker's code.
        yield _lag(facts)


def _plain_function(facts: Facts) -> Iterator[Finding]:
    # Without an event loop there is nothing that should run regularly: a long wait or a
    # long computation may be the function's purpose.
    main = facts.main
    if facts.duration < STUCK or main.has_turned:
        return
    if main.lock and not works(facts):
        yield _stuck(main, f"It waited for a lock for all {facts.duration:.1f} s.")
    elif works(facts) and main.running >= ALWAYS and main.is_one_call:
        text = (
            f"For all {facts.duration:.1f} s it stayed in one function call and never "
            "checked worker.stopping. If that call is meant to compute for so long, "
            "nothing is wrong: a plain function has no event loop that would show "
            "progress."
        )
        yield _spinning(main, text, Certainty.POSSIBLE)


def works(facts: Facts) -> bool:
    """Return whether the main thread uses, or wants, a CPU instead of waiting."""
    main = facts.main
    if main.cpu is None:
        return main.running >= 0.5
    if main.running < 0.5:
        # A thread with many short sleeps may wait for a CPU after each of them.
        return main.cpu >= BUSY
    wanted = main.cpu + main.queued / facts.duration
    return wanted >= BUSY or (main.running >= ALWAYS and main.cpu >= SOME)


def _stuck(main: MainThreadFacts, what: str) -> Finding:
    return Finding(
        kind="stuck",
        title=f"the main thread is blocked {_at(main.place)}",
        text=f"{what} The main thread waits there; nothing else can run in it.",
        evidence=(*main.lock, *main.stack),
        advice="Await an asynchronous call instead, or make the blocking call in a "
        "thread; give every wait a deadline. `thread-dump NAME --locals` shows all "
        "threads and their variables.",
        severity=Severity.STANDSTILL,
        certainty=Certainty.SURE,
    )


def _spinning(main: MainThreadFacts, what: str, certainty: Certainty) -> Finding:
    used = "" if main.cpu is None else f", using {main.cpu:.0%} of a CPU"
    if main.queued >= QUEUED:
        used += f", and waited {main.queued:.1f} s for a CPU"
    return Finding(
        kind="spinning",
        title=f"the main thread is busy {_at(main.place)}",
        text=f"{what} The main thread is computing{used}; {main.share:.0%} of the "
        "samples are at that line.",
        evidence=main.stack,
        advice="Check why the loop around that line does not end, or move the work "
        "to a thread or a process. `profile NAME` shows where the time is spent, "
        "`thread-dump NAME --locals` the variables.",
        severity=Severity.STANDSTILL,
        certainty=certainty,
    )


def _lag(facts: Facts) -> Finding:
    main = facts.main
    held = " C code held the GIL; no other Python thread could run either."
    still = (
        f" It has now been blocked for {main.silent:.2f} s."
        if main.silent >= LAG
        else ""
    )
    times = "once" if main.stalls == 1 else f"{main.stalls} times"
    return Finding(
        kind="lag",
        title=f"the event loop lags, longest {_at(main.stall_place)}",
        text=f"The event loop was blocked {times} in {facts.duration:.1f} s (longest "
        f"{main.longest:.2f} s); no other task ran during that time."
        f"{still}{held if main.is_held else ''}",
        evidence=main.stall,
        advice="Move the slow call to a thread, or split it into smaller steps. "
        "`slow-tasks NAME` shows all stalls since the start, `profile NAME` where the "
        "time is spent.",
        severity=Severity.TROUBLE,
        certainty=Certainty.SURE,
    )


def _garbage(facts: Facts) -> Iterator[Finding]:
    garbage = facts.garbage
    if garbage is None or garbage.share < GARBAGE:
        return
    began = (
        f" {garbage.share_of_place:.0%} of the collection time was triggered at "
        f"{garbage.place}."
        if garbage.place
        else ""
    )
    yield Finding(
        kind="garbage",
        title=f"garbage collection takes {garbage.share:.0%} of the time",
        text=f"{garbage.collections} collections, longest pause "
        f"{garbage.longest * 1e3:.0f} ms, most of the time in generation "
        f"{garbage.generation}. No Python code runs during a collection.{began}",
        evidence=garbage.stack,
        advice="Check for frequent gc.collect() calls, and for many long-lived objects "
        "with a low threshold (gc.get_threshold()). gc.freeze() after start-up "
        "excludes the existing objects. `garbage-profile NAME` shows all pauses.",
        severity=Severity.TROUBLE,
        certainty=Certainty.SURE,
    )


def _at(place: str) -> str:
    return f"at {place}" if place else "at an unknown line (no sample of it)"
