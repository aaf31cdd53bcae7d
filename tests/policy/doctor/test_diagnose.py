"""Test diagnoses of synthetic facts, against simpler rules."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.policy.doctor.diagnose import diagnose
from trio_supervisor.policy.doctor.facts import (
    ENOUGH,
    DeadlockFacts,
    DescriptorFacts,
    Facts,
    GarbageFacts,
    GrowthFacts,
    HolderFacts,
    MainThreadFacts,
    MemoryFacts,
    growth,
    has_risen,
    largest_fall,
)
from trio_supervisor.policy.doctor.findings import KINDS
from trio_supervisor.policy.doctor.unresponsive import End, down, ended, held, stopped
from trio_supervisor.wire.diagnosis import Certainty, Severity

MIB = 2**20
MAIN = MainThreadFacts(loop="trio", running=0.3, cpu=0.3, place="app.py:7 in work")
FREE = 2**33
GARBAGE = GarbageFacts(share=0.02, collections=9, longest=0.01, generation=2)
HEALTHY = Facts(
    duration=5.0,
    main=MAIN,
    deadlocks=(),
    memory=MemoryFacts(resident=(50 * MIB,) * 10, blocks=(90_000,) * 10, free=FREE),
    garbage=GARBAGE,
    descriptors=DescriptorFacts(counts=(12,) * 10, limit=1024),
    tasks=GrowthFacts(counts=(4,) * 10),
    threads=GrowthFacts(counts=(2,) * 10),
)
PLAIN = evolve(HEALTHY, main=evolve(MAIN, loop=None))
DEADLOCK = DeadlockFacts(
    threads=("a", "b"), has_main=False, is_sure=True, lines=("a waits for b",)
)
HELD = HolderFacts(
    memory=300_000,
    count=1_500,
    chain=("local variable cache of main()", "variable CACHE of module app"),
    title="variable CACHE of module app",
)


GROWN = evolve(HELD, memory=0, count=0, grown=9 * MIB)


def climb(first: int, step: int) -> tuple[int, ...]:
    """A series of ten in steady growth; its halves' least are five steps apart."""
    return tuple(first + step * number for number in range(10))


def kinds(facts: Facts) -> list[str]:
    """Return the kinds of all findings, in order."""
    return [finding.kind for finding in diagnose(facts)]


def with_main(facts: Facts = HEALTHY, **changes: Any) -> Facts:
    """Other facts of the main thread."""
    return evolve(facts, main=evolve(facts.main, **changes))


def with_memory(**changes: Any) -> Facts:
    """Other facts of the memory."""
    return evolve(HEALTHY, memory=evolve(HEALTHY.memory, **changes))


def with_descriptors(**changes: Any) -> Facts:
    """Other facts of the descriptors."""
    return evolve(HEALTHY, descriptors=evolve(HEALTHY.descriptors, **changes))


def leak(held: HolderFacts = HELD, **changes: Any) -> Facts:
    """A heap that grew by twice what is held."""
    blocks = climb(90_000, held.count * 2 // 5)
    return with_memory(sampled=2.5, holders=(held,), **{"blocks": blocks, **changes})


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(HEALTHY, [], id="healthy"),
        pytest.param(PLAIN, [], id="a healthy plain function"),
        pytest.param(
            with_main(silent=4.5, cpu=0.01, running=0.0), ["stuck"], id="waits"
        ),
        pytest.param(with_main(silent=4.4), [], id="came round once"),
        pytest.param(
            with_main(silent=5, cpu=0.07, queued=1.8, running=1.0),
            ["spinning"],
            id="computes among many processes",
        ),
        pytest.param(
            with_main(silent=5, cpu=0.02, queued=0.8, running=1.0),
            ["stuck"],
            id="in C code that waits",
        ),
        pytest.param(
            with_main(silent=5, cpu=0.02, queued=1.8, running=0.1),
            ["stuck"],
            id="naps among many processes",
        ),
        pytest.param(
            with_main(silent=5, cpu=0.03, running=0.9),
            ["spinning"],
            id="computes among many threads",
        ),
        pytest.param(
            with_main(PLAIN, running=1.0, cpu=0.05, queued=1.8, is_one_call=True),
            ["spinning"],
            id="plain, among many processes",
        ),
        pytest.param(with_main(silent=4.5, cpu=0.2), ["spinning"], id="computes"),
        pytest.param(
            with_main(silent=5, cpu=None, running=0.5), ["spinning"], id="no clock"
        ),
        pytest.param(
            with_main(silent=5, cpu=None, running=0.4), ["stuck"], id="no clock, waits"
        ),
        pytest.param(with_main(longest=0.25, stalls=1), ["lag"], id="late"),
        pytest.param(with_main(longest=0.24, stalls=9), [], id="hardly late"),
        pytest.param(
            with_main(longest=0.9, stalls=1, queued=0.7), [], id="late by no processor"
        ),
        pytest.param(
            with_main(PLAIN, running=0.95, cpu=0.9, is_one_call=True),
            ["spinning"],
            id="plain, one call",
        ),
        pytest.param(
            with_main(PLAIN, running=0.95, cpu=0.9), [], id="plain, many calls"
        ),
        pytest.param(
            with_main(PLAIN, running=0.95, cpu=0.9, is_one_call=True, has_turned=True),
            [],
            id="plain, looks whether to stop",
        ),
        pytest.param(
            with_main(PLAIN, running=0.0, cpu=0.0, lock=("main waits for a lock",)),
            ["stuck"],
            id="plain, in a lock",
        ),
        pytest.param(
            with_main(PLAIN, running=0.0, cpu=0.0), [], id="plain, waits for work"
        ),
        pytest.param(evolve(HEALTHY, deadlocks=(DEADLOCK,)), ["deadlock"], id="locked"),
        pytest.param(
            evolve(
                with_main(silent=5, cpu=0.0),
                deadlocks=(evolve(DEADLOCK, has_main=True),),
            ),
            ["deadlock"],
            id="stuck in a deadlock",
        ),
        pytest.param(
            evolve(HEALTHY, garbage=evolve(GARBAGE, share=0.2)),
            ["garbage"],
            id="collects",
        ),
        pytest.param(
            evolve(HEALTHY, garbage=evolve(GARBAGE, share=0.19)),
            [],
            id="collects less",
        ),
        pytest.param(evolve(HEALTHY, garbage=None), [], id="nobody knows"),
        pytest.param(leak(), ["leak"], id="leaks"),
        pytest.param(leak(blocks=(90_000,) * 10), [], id="new in place of old"),
        pytest.param(
            with_memory(
                sampled=2.5, holders=(GROWN,), resident=climb(50 * MIB, 2 * MIB)
            ),
            ["leak"],
            id="a buffer grows",
        ),
        pytest.param(
            with_memory(sampled=2.5, holders=(GROWN,), blocks=climb(90_000, 99)),
            [],
            id="a buffer that may be emptied",
        ),
        pytest.param(leak(evolve(HELD, memory=65_535)), [], id="holds little"),
        pytest.param(
            leak(evolve(HELD, count=20), blocks=(500, 90, 500, 90, 700, 110) * 2),
            [],
            id="up and down",
        ),
        pytest.param(
            leak(
                evolve(HELD, count=4_968),
                blocks=(90_000, 93_000, 90_500, 94_800, 92_700, 93_900, 92_600, 94_000),
            ),
            [],
            id="up and down, and by chance at the bottom at first",
        ),
        pytest.param(
            with_memory(resident=climb(50 * MIB, 2 * MIB)), ["leak"], id="unseen growth"
        ),
        pytest.param(with_memory(resident=climb(50 * MIB, MIB)), [], id="small growth"),
        pytest.param(
            with_memory(resident=climb(50 * MIB, 2 * MIB), free=2**29),
            ["memory", "leak"],
            id="out of memory soon",
        ),
        pytest.param(with_memory(free=31 * MIB), ["memory"], id="no memory left"),
        pytest.param(
            with_descriptors(counts=climb(12, 1)), ["descriptors"], id="opens"
        ),
        pytest.param(
            with_descriptors(counts=(12, 20, 13, 19, 12, 18, 20, 17, 19, 20)),
            [],
            id="opens and closes",
        ),
        pytest.param(with_descriptors(hung_up=20), ["descriptors"], id="hung up"),
        pytest.param(with_descriptors(hung_up=19), [], id="some hung up"),
        pytest.param(
            with_descriptors(counts=(922,) * 10), ["descriptors"], id="hardly any left"
        ),
        pytest.param(
            with_descriptors(counts=(921,) * 10), [], id="a tenth of them left"
        ),
        pytest.param(
            with_descriptors(counts=(921,) * 10, limit=None), [], id="no limit"
        ),
        pytest.param(
            evolve(HEALTHY, tasks=GrowthFacts(counts=climb(4, 2))),
            ["tasks"],
            id="tasks",
        ),
        pytest.param(
            evolve(HEALTHY, tasks=GrowthFacts(counts=climb(4, 1))), [], id="some tasks"
        ),
        pytest.param(
            evolve(HEALTHY, threads=GrowthFacts(counts=climb(2, 2))),
            ["threads"],
            id="threads",
        ),
        pytest.param(
            evolve(HEALTHY, threads=GrowthFacts(counts=climb(2, 1))),
            [],
            id="a few threads",
        ),
    ],
)
def test_diagnose_finds_each_fault_and_nothing_else(
    facts: Facts, expected: list[str]
) -> None:
    assert kinds(facts) == expected


def test_findings_by_severity_causes_before_effects() -> None:
    """A leak that will end in no memory is as bad as that, and told before it."""
    facts = evolve(
        leak(resident=climb(50 * MIB, 2 * MIB), free=2**29),
        main=evolve(MAIN, silent=5, cpu=1.0),
        garbage=evolve(GARBAGE, share=0.5),
        tasks=GrowthFacts(counts=climb(4, 9)),
    )

    assert kinds(facts) == ["spinning", "leak", "memory", "garbage", "tasks"]


def test_memory_finding_has_time_left() -> None:
    """Half of five seconds took 10 MiB; so 512 MiB last for 128 s."""
    facts = with_memory(resident=climb(50 * MIB, 2 * MIB), free=512 * MIB)
    memory, *_ = diagnose(facts)

    assert memory.title == "out of memory in 128 s"


def test_leak_names_holder_and_lag_names_line() -> None:
    (found,) = diagnose(leak())
    (lag,) = diagnose(with_main(longest=0.5, stall_place="app.py:9 in slow"))

    assert "variable CACHE of module app" in found.title
    assert "app.py:9 in slow" in lag.title


def test_garbage_names_triggering_line() -> None:
    stack = ("app.py:5 in load: gc.collect()", "app.py:9 in work: load()")
    garbage = evolve(
        GARBAGE, share=0.5, place=stack[0], share_of_place=0.9, stack=stack
    )
    (found,) = diagnose(evolve(HEALTHY, garbage=garbage))

    assert found.text.endswith(
        "90% of the collection time was triggered at app.py:5 in load: gc.collect()."
    )
    assert found.evidence == stack


def test_leak_separates_new_objects_from_growth() -> None:
    resident = climb(50 * MIB, 4 * MIB)
    both = evolve(HELD, memory=2 * MIB, grown=3 * MIB)
    (grown,) = diagnose(with_memory(sampled=2.0, holders=(GROWN,), resident=resident))
    (mixed,) = diagnose(with_memory(sampled=2.0, holders=(both,), resident=resident))

    assert "9.0 MiB of growth in existing objects: 4.5 MiB per second" in grown.text
    assert (
        "2.0 MiB in 1500 new objects that survived garbage collection and 3.0 MiB of "
        in mixed.text
    )


def test_spinning_without_cpu_gives_no_blocking_advice() -> None:
    (found,) = diagnose(with_main(silent=5, cpu=0.07, queued=1.84, running=1.0))

    assert "7% of a CPU, and waited 1.8 s for a CPU" in found.text
    assert "block" not in found.advice


# Any facts at all.

counts = st.lists(st.integers(0, 60), max_size=12).map(tuple)
sizes = st.lists(st.integers(0, 200).map(lambda n: n * MIB), max_size=12).map(tuple)
shares = st.floats(0, 1)
seconds = st.sampled_from([0.0, 0.2, 0.25, 0.5, 1.0, 2.0, 4.5, 5.0, 900.0])
lines = st.lists(st.sampled_from(["one", "two"]), max_size=2).map(tuple)
holders = st.builds(
    HolderFacts,
    memory=st.integers(0, 10 * MIB),
    count=st.integers(0, 5_000),
    grown=st.integers(0, 10 * MIB),
    chain=st.just(("a list",)),
    title=st.just("a list"),
    is_known=st.booleans(),
)
any_facts = st.builds(
    Facts,
    duration=st.sampled_from([0.1, 1.0, 5.0, 60.0]),
    main=st.builds(
        MainThreadFacts,
        loop=st.sampled_from([None, "trio", "asyncio"]),
        running=shares,
        cpu=st.none() | shares,
        queued=seconds,
        place=st.sampled_from(["", "app.py:1 in f"]),
        share=shares,
        stack=lines,
        silent=seconds,
        stalls=st.integers(0, 9),
        longest=seconds,
        stall=lines,
        is_held=st.booleans(),
        is_one_call=st.booleans(),
        has_turned=st.booleans(),
        lock=lines,
    ),
    deadlocks=st.lists(
        st.builds(
            DeadlockFacts,
            threads=st.just(("a", "b")),
            has_main=st.booleans(),
            is_sure=st.booleans(),
            lines=lines,
        ),
        max_size=2,
    ).map(tuple),
    memory=st.builds(
        MemoryFacts,
        resident=sizes,
        blocks=counts,
        free=st.integers(0, 2**34),
        sampled=st.sampled_from([0.0, 0.5, 2.5]),
        holders=st.lists(holders, max_size=3).map(tuple),
    ),
    garbage=st.none()
    | st.builds(
        GarbageFacts,
        share=shares,
        collections=st.integers(0, 99),
        longest=seconds,
        generation=st.integers(0, 2),
    ),
    descriptors=st.builds(
        DescriptorFacts,
        counts=counts,
        limit=st.none() | st.integers(1, 100),
        hung_up=st.integers(0, 40),
        grown=lines,
    ),
    tasks=st.builds(GrowthFacts, counts=counts, grown=lines),
    threads=st.builds(GrowthFacts, counts=counts, grown=lines),
)


@given(any_facts)
def test_findings_do_not_contradict_each_other(facts: Facts) -> None:
    """Of what the main thread does only one thing is true; and each is said once."""
    found = kinds(facts)

    assert sum(kind in ("stuck", "spinning", "lag") for kind in found) <= 1
    others = [kind for kind in found if kind != "deadlock"]
    assert len(set(others)) == len(others)
    if any(one.has_main for one in facts.deadlocks):
        assert not {"stuck", "spinning", "lag"} & set(found)
    if facts.main.loop is None:
        assert "lag" not in found


@given(any_facts)
def test_findings_are_sorted(facts: Facts) -> None:
    """No pair of them could be swapped."""
    for one, other in combinations(diagnose(facts), 2):
        severity = list(Severity).index
        assert severity(one.severity) <= severity(other.severity)
        if one.severity is other.severity:
            certainty = list(Certainty).index
            assert certainty(one.certainty) <= certainty(other.certainty)
            if one.certainty is other.certainty:
                assert KINDS.index(one.kind) <= KINDS.index(other.kind)


@given(any_facts)
def test_findings_have_advice_with_a_command(facts: Facts) -> None:
    """With a command that shows more, or helps."""
    for finding in diagnose(facts):
        assert finding.kind in KINDS
        assert finding.title
        assert finding.text.endswith(".")
        assert " NAME" in finding.advice


@given(any_facts)
def test_steady_worker_that_makes_progress_is_healthy(
    facts: Facts,
) -> None:
    """Whatever else is so: how much it uses, holds, or has open."""
    quiet = evolve(
        facts,
        main=evolve(facts.main, silent=0.0, longest=0.0, is_one_call=False, lock=()),
        deadlocks=(),
        memory=evolve(facts.memory, resident=(MIB,) * 9, blocks=(7,) * 9, free=FREE),
        garbage=None,
        descriptors=evolve(facts.descriptors, counts=(50,) * 9, limit=100, hung_up=0),
        tasks=GrowthFacts(counts=(9_000,) * 9),
        threads=GrowthFacts(counts=(300,) * 9),
    )

    assert diagnose(quiet) == ()


rising = st.lists(st.integers(0, 3), min_size=2, max_size=12).map(
    lambda steps: [sum(steps[:number]) for number in range(1, len(steps) + 1)]
)


@given(
    st.lists(st.integers(0, 20), min_size=2, max_size=12) | rising, st.integers(1, 9)
)
def test_growth_agrees_with_oracle(series: list[int], least: int) -> None:
    fall = max(
        (one - other for one, other in combinations(series, 2) if one > other),
        default=0,
    )
    middle = len(series) // 2
    grown = sorted(series[middle:])[0] - sorted(series[:middle])[0]

    assert largest_fall(series) == fall
    assert growth(series) == grown
    is_clear = grown >= least and grown >= 2 * fall
    assert has_risen(series, least) == (is_clear and len(series) >= ENOUGH)


@given(st.integers(0, 99), st.integers(0, 9), st.integers(0, 99))
def test_fluctuation_has_not_risen(level: int, swing: int, least: int) -> None:
    series = [level, level + swing] * 6

    assert not has_risen(series, max(1, least))


def test_findings_from_outside_are_certain_standstills() -> None:
    for finding in (
        stopped("it is stopped, as by SIGSTOP: nothing in it runs", 77),
        held("app.py:7 in work", ("app.py:7 in work",), is_main=True, duration=1.5),
    ):
        assert finding.kind in KINDS
        assert finding.severity is Severity.STANDSTILL
        assert finding.certainty is Certainty.SURE


def test_stopped_advises_kill_cont() -> None:
    finding = stopped("it is stopped, as by SIGSTOP: nothing in it runs", 77)
    assert finding.title.startswith("the process is stopped, as by SIGSTOP")
    assert "kill -CONT 77" in finding.advice


@pytest.mark.parametrize(
    ("is_main", "thread"), [(True, "the main thread"), (False, "a thread")]
)
def test_held_names_line_that_holds_the_gil(is_main: bool, thread: str) -> None:
    lines = ("re.py:1 in match", "app.py:7 in work")
    finding = held("app.py:7 in work", lines, is_main=is_main, duration=1.5)
    assert finding.title == f"{thread} is blocked at app.py:7 in work"
    assert finding.evidence == lines
    assert finding.text.startswith("C code called at app.py:7 holds the GIL; no other ")
    assert "1.5 s" in finding.text


def test_planned_exit_is_no_danger() -> None:
    planned = ended(
        End(process_id=7, exit="exit code 0", cause="restart", is_planned=True), "Next."
    )
    crash = ended(
        End(process_id=7, exit="SIGSEGV", cause="exit", stacks=("  File a",)), "Next."
    )
    assert (planned.severity, crash.severity) == (Severity.TROUBLE, Severity.DANGER)
    assert planned.title.endswith("during the examination: exit code 0, restart")
    assert planned.text == "The exit was planned. Next."
    assert crash.title.endswith("during the examination: SIGSEGV")
    assert crash.evidence == ("  File a",)


def test_down_of_stopped_worker_advises_start() -> None:
    assert "`start db.0`" in down("db.0", "stopped", "", ()).advice
    broken = down("db.0", "backoff", "Why.", ("same", "same", "other"))
    assert broken.severity is Severity.STANDSTILL
    assert broken.evidence == ("last output: same", "last output: other")
