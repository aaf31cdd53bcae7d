"""Why a worker does not get on: deadlocks, waits, endless loops, lags, collections."""

from __future__ import annotations

from collections.abc import Iterator

from trio_supervisor.policy.doctor.facts import DeadlockFacts, Facts, MainThreadFacts
from trio_supervisor.policy.doctor.findings import Certainty, Finding, Severity

STUCK = 1.0
"""A loop that did not come round for so long does nothing for anybody [s]."""
WHOLE = 0.9
"""Part of the examination that the loop was silent for: before that it only lags."""
BUSY = 0.2
"""Processors that a thread uses which works, also where many want one. Waiting in short
naps takes a tenth of it."""
SOME = 0.03
"""Of a processor: enough for one that all looks saw running, where many threads want
the interpreter's lock. What only seems to run, in C code, uses nothing."""
ALWAYS = 0.9
"""Share of looks that is called all of the time: some hit the code around a loop."""
QUEUED = 0.1
"""Without a processor that was wanted [s]: worth a word."""
LAG = 0.25
"""A loop that is late by so much is felt by whoever waits for it [s]."""
GARBAGE = 0.2
"""Share of the time for collections: programs that make much garbage need a tenth."""


def find_standstill(facts: Facts) -> Iterator[Finding]:
    """Return what keeps the worker from its work."""
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
            advice="Take these locks in the same order everywhere. Only a restart gets "
            "the worker out of it: `restart NAME`; `call NAME lock-dump` shows all "
            "locks that are waited for, `thread-dump NAME --locals` the stacks.",
            severity=Severity.STANDSTILL if one.has_main else Severity.DANGER,
            certainty=Certainty.SURE if one.is_sure else Certainty.LIKELY,
        )


def _deadlock_text(one: DeadlockFacts) -> str:
    first, *others = one.threads
    circle = ", which waits for ".join((*others, first))
    text = f"{first} waits for {circle}: none of them can ever go on."
    if one.has_main:
        text += " The main thread is among them, so that all stands still."
    return text


def _main_thread(facts: Facts) -> Iterator[Finding]:
    main = facts.main
    if any(one.has_main for one in facts.deadlocks):
        return  # that is why
    if main.loop is None:
        yield from _plain_function(facts)
    elif main.silent >= STUCK and main.silent >= WHOLE * facts.duration:
        what = f"Its event loop has not come round for {main.silent:.1f} s."
        if works(facts):
            yield _spinning(main, what, Certainty.SURE)
        else:
            yield _stuck(main, what)
    elif main.longest - main.queued >= LAG:
        # What the system did not let it run is not the fault of its code.
        yield _lag(facts)


def _plain_function(facts: Facts) -> Iterator[Finding]:
    # It has no loop that would have to come round: to wait, or to compute, for long may
    # be what it is there for.
    main = facts.main
    if facts.duration < STUCK or main.has_turned:
        return
    if main.lock and not works(facts):
        yield _stuck(main, f"It waited for a lock for all of {facts.duration:.1f} s.")
    elif works(facts) and main.running >= ALWAYS and main.is_one_call:
        text = (
            f"For all of {facts.duration:.1f} s it was in one and the same call, and "
            "never looked whether it is to stop. Of a plain function nobody can tell "
            "whether it gets on: if it is to compute for so long, nothing is wrong."
        )
        yield _spinning(main, text, Certainty.POSSIBLE)


def works(facts: Facts) -> bool:
    """Whether the main thread uses the processor, or would, rather than to wait."""
    main = facts.main
    if main.cpu is None:
        return main.running >= 0.5
    if main.running < 0.5:
        # Who wakes from many short naps may wait for a processor each time.
        return main.cpu >= BUSY
    wanted = main.cpu + main.queued / facts.duration
    return wanted >= BUSY or (main.running >= ALWAYS and main.cpu >= SOME)


def _stuck(main: MainThreadFacts, what: str) -> Finding:
    return Finding(
        kind="stuck",
        title=f"the main thread is stuck {_at(main.place)}",
        text=f"{what} It waits there, and nothing else in this thread can run.",
        evidence=(*main.lock, *main.stack),
        advice="Do not block there: use the awaitable way, or a thread, and give every "
        "wait a deadline. `thread-dump NAME --locals` shows all threads and variables.",
        severity=Severity.STANDSTILL,
        certainty=Certainty.SURE,
    )


def _spinning(main: MainThreadFacts, what: str, certainty: Certainty) -> Finding:
    used = "" if main.cpu is None else f", using {main.cpu:.0%} of a processor"
    if main.queued >= QUEUED:
        used += f", and waited {main.queued:.1f} s for one"
    return Finding(
        kind="spinning",
        title=f"the main thread spins {_at(main.place)}",
        text=f"{what} It computes{used}; {main.share:.0%} of the looks saw it at "
        "that line.",
        evidence=main.stack,
        advice="See why the loop around that line does not end, or move the work into "
        "a thread or a process. `profile NAME` shows where the time goes, `thread-dump "
        "NAME --locals` the variables.",
        severity=Severity.STANDSTILL,
        certainty=certainty,
    )


def _lag(facts: Facts) -> Finding:
    main = facts.main
    held = " No other thread could run then: C code kept the interpreter to itself."
    still = (
        f" It has not come round for {main.silent:.2f} s now."
        if main.silent >= LAG
        else ""
    )
    return Finding(
        kind="lag",
        title=f"the event loop lags, the worst {_at(main.stall_place)}",
        text=f"It did not come round {main.stalls} times in {facts.duration:.1f} s, "
        f"for up to {main.longest:.2f} s: for so long everybody waits."
        f"{still}{held if main.is_held else ''}",
        evidence=main.stall,
        advice="Move what takes long there into a thread, or cut it into pieces. "
        "`slow-tasks NAME` shows all such times since the start, `profile NAME` where "
        "the time goes.",
        severity=Severity.TROUBLE,
        certainty=Certainty.SURE,
    )


def _garbage(facts: Facts) -> Iterator[Finding]:
    garbage = facts.garbage
    if garbage is None or garbage.share < GARBAGE:
        return
    began = (
        f" {garbage.share_of_place:.0%} of it began at {garbage.place}."
        if garbage.place
        else ""
    )
    yield Finding(
        kind="garbage",
        title=f"{garbage.share:.0%} of the time goes into collecting garbage",
        text=f"Most of it into generation {garbage.generation}: "
        f"{garbage.collections} collections in all, the longest of "
        f"{garbage.longest * 1e3:.0f} ms. Nothing else runs meanwhile.{began}",
        evidence=garbage.stack,
        advice="Something calls gc.collect() often, or makes very many objects that "
        "stay, with a threshold that is too low: see gc.get_threshold(); gc.freeze() "
        "after the start takes what is there out of it. `garbage-profile NAME` shows "
        "all pauses.",
        severity=Severity.TROUBLE,
        certainty=Certainty.SURE,
    )


def _at(place: str) -> str:
    return f"at {place}" if place else "in a place that was not seen"
