"""Test that the doctor finds planted faults in real processes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio

import tests.kits.faulty_process
from tests.kits.faulty_process import Caller, ExaminedWorker
from tests.kits.places import ROOT
from trio_supervisor.diagnostics.locations import thread_locations
from trio_supervisor.diagnostics.memory.memory_lock import acquire_memory_lock
from trio_supervisor.diagnostics.tasks.main_loop import current_main_loop
from trio_supervisor.wire.codec import parse_result
from trio_supervisor.wire.diagnosis import Diagnosis
from trio_supervisor.worker.doctor.examine import examine

pytestmark = pytest.mark.slow

SOURCE = Path(tests.kits.faulty_process.__file__)
LOOPS = ["trio", "asyncio"]
ALL = [*LOOPS, "sync"]


def line_of(mark: str) -> str:
    """Return ``faulty_process.py:LINE`` of the line with that comment."""
    for number, text in enumerate(SOURCE.read_text().splitlines(), start=1):
        if text.endswith(f"# {mark}"):
            return f"{SOURCE.name}:{number}"
    raise LookupError(mark)


def run_process(backend: str, fault: str) -> dict[str, Any]:
    """Run a process that has *fault*; return its output."""
    process = subprocess.run(
        [sys.executable, "-m", tests.kits.faulty_process.__name__, backend, fault],
        cwd=ROOT,
        capture_output=True,
        timeout=90,
        check=False,
    )
    assert process.returncode == 0, process.stderr.decode()
    fields: dict[str, Any] = orjson.loads(process.stdout)
    return fields


def diagnose(backend: str, fault: str) -> Diagnosis:
    """Return the diagnosis of a process that has *fault*."""
    return parse_result(run_process(backend, fault), Diagnosis)


def kinds(diagnosis: Diagnosis) -> list[str]:
    """Return the kinds of all findings, in order."""
    return [finding.kind for finding in diagnosis.findings]


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("state", ["idle", "busy"])
def test_examine_healthy_worker_finds_nothing(backend: str, state: str) -> None:
    """The areas that were examined are listed."""
    diagnosis = diagnose(backend, state)

    assert diagnosis.findings == (), diagnosis.data
    assert diagnosis.data.startswith("No problem found in 2 s\n")
    for area in ("main thread", "locks", "memory", "garbage", "descriptors", "threads"):
        assert any(line.startswith(f"{area}:") for line in diagnosis.looked_at), area
    assert diagnosis.overhead < 0.25


@pytest.mark.parametrize("backend", ALL)
def test_examine_leak_names_holder(backend: str) -> None:
    diagnosis = diagnose(backend, "leak")

    assert kinds(diagnosis) == ["leak"], diagnosis.data
    (leak,) = diagnosis.findings
    assert "variable HELD of module" in leak.title
    assert line_of("LEAK") in leak.title


@pytest.mark.parametrize(
    ("fault", "holder", "mark"),
    [
        ("leak_in_cache", "lru_cache of cached()", "CACHED"),
        ("grow", "variable BUFFER of module", "BUFFER"),
        ("leak_in_context", "context variable CONTEXT of module", "CONTEXT"),
    ],
)
def test_examine_leak_names_nearest_application_holder(
    fault: str, holder: str, mark: str
) -> None:
    """The title is not the event loop's frame at the start of the chain."""
    diagnosis = diagnose("trio", fault)

    assert kinds(diagnosis) == ["leak"], diagnosis.data
    (found,) = diagnosis.findings
    assert found.title.startswith(f"memory leak: {holder}")
    assert line_of(mark) in found.title
    assert any(holder in line for line in found.evidence)


@pytest.mark.parametrize("backend", LOOPS)
def test_examine_blocked_loop_names_line(backend: str) -> None:
    diagnosis = diagnose(backend, "stuck")

    assert kinds(diagnosis) == ["stuck"], diagnosis.data
    assert f"{line_of('STUCK')} in stuck: time.sleep(3600)" in diagnosis.data


@pytest.mark.parametrize("backend", ALL)
def test_examine_endless_loop_names_line(backend: str) -> None:
    """In a plain function it is only possible."""
    diagnosis = diagnose(backend, "spin")

    assert kinds(diagnosis) == ["spinning"], diagnosis.data
    (found,) = diagnosis.findings
    assert "in spin" in found.title
    assert found.certainty.value == ("possible" if backend == "sync" else "sure")


@pytest.mark.parametrize("backend", LOOPS)
def test_examine_endless_loop_among_threads_is_spinning(backend: str) -> None:
    diagnosis = diagnose(backend, "spin_among_many")

    # Of the many, the last may be started only now.
    assert kinds(diagnosis) in (["spinning"], ["spinning", "threads"]), diagnosis.data


@pytest.mark.parametrize("backend", ALL)
def test_examine_held_lock_names_owner(backend: str) -> None:
    diagnosis = diagnose(backend, "held_lock")

    assert kinds(diagnosis) == ["stuck"], diagnosis.data
    (found,) = diagnosis.findings
    assert line_of("WAITS") in found.title
    assert any("hoarder" in line for line in found.evidence)
    assert any(line_of("HOLDER") in line for line in found.evidence)
    assert diagnosis.facts["main"]["share"] > 0.9  # whatever the hoarder does


@pytest.mark.parametrize("backend", ALL)
def test_examine_main_thread_deadlock_is_one_finding(backend: str) -> None:
    """That the main thread is blocked is no finding of its own."""
    diagnosis = diagnose(backend, "deadlock")

    assert kinds(diagnosis) == ["deadlock"], diagnosis.data
    (found,) = diagnosis.findings
    assert "MainThread waits for other, which waits for MainThread" in found.text
    assert any(line_of("DEADLOCK") in line for line in found.evidence)
    assert found.severity.value == "standstill"


def test_examine_deadlock_of_other_threads_is_danger() -> None:
    diagnosis = diagnose("trio", "distant_deadlock")

    assert kinds(diagnosis) == ["deadlock"], diagnosis.data
    assert {"left", "right"} <= set(
        diagnosis.findings[0].title.replace(",", "").split()
    )
    assert diagnosis.findings[0].severity.value == "danger"


@pytest.mark.parametrize("backend", LOOPS)
def test_examine_lag_names_worst_line(backend: str) -> None:
    diagnosis = diagnose(backend, "lag")

    assert kinds(diagnosis) == ["lag"], diagnosis.data
    assert line_of("LAG") in diagnosis.findings[0].title


@pytest.mark.parametrize("backend", ALL)
def test_examine_descriptor_leak_names_target(backend: str) -> None:
    diagnosis = diagnose(backend, "descriptors")

    assert kinds(diagnosis)[0] == "descriptors", diagnosis.data
    assert any("/dev/null" in line for line in diagnosis.findings[0].evidence)


def test_examine_connections_closed_by_peer_are_found() -> None:
    diagnosis = diagnose("asyncio", "hung_up")

    assert kinds(diagnosis) == ["descriptors"], diagnosis.data
    assert "30 are connections" in diagnosis.findings[0].text


@pytest.mark.parametrize("backend", ALL)
def test_examine_frequent_collections_are_found(backend: str) -> None:
    diagnosis = diagnose(backend, "garbage")

    assert kinds(diagnosis)[0] == "garbage", diagnosis.data
    assert "generation 2" in diagnosis.findings[0].text
    assert (
        f"{line_of('GARBAGE')} in garbage: gc.collect()" in diagnosis.findings[0].text
    )
    assert line_of("GARBAGE") in diagnosis.findings[0].evidence[0]


@pytest.mark.parametrize("backend", LOOPS)
def test_examine_growing_tasks_name_location(backend: str) -> None:
    diagnosis = diagnose(backend, "tasks")

    assert kinds(diagnosis)[0] == "tasks", diagnosis.data
    assert "sleep" in diagnosis.findings[0].evidence[0]


@pytest.mark.parametrize("backend", ["trio", "sync"])
def test_examine_growing_threads_name_location(backend: str) -> None:
    diagnosis = diagnose(backend, "threads")

    assert kinds(diagnosis)[0] == "threads", diagnosis.data
    assert line_of("THREADS") in diagnosis.findings[0].evidence[0]


def test_thread_locations_omit_calling_thread() -> None:
    assert not any(location.file == __file__ for location in thread_locations())


def test_examine_memory_running_out_is_found() -> None:
    """The leak that causes it is found too."""
    diagnosis = diagnose("trio", "memory")

    assert kinds(diagnosis) == ["leak", "memory"], diagnosis.data
    assert {finding.severity.value for finding in diagnosis.findings} == {"danger"}


def test_examine_own_descriptors_do_not_count() -> None:
    diagnosis = diagnose("trio", "idle")

    assert len(set(diagnosis.facts["descriptors"]["counts"])) == 1


def test_examine_busy_profilers_are_left_out() -> None:
    """Everything else is examined."""
    diagnosis = diagnose("trio", "sampled")

    assert diagnosis.findings == ()
    garbage, holders = diagnosis.left_out
    assert garbage.startswith("garbage collection: ")
    assert holders.startswith("retained memory: a memory sample")
    assert holders in diagnosis.data


def test_examine_reports_progress() -> None:
    heard = run_process("trio", "idle")["progress"]

    assert heard == sorted(heard)
    assert heard[0] < 0.1
    assert 0.8 < heard[-1] <= 1.0


@pytest.mark.parametrize("duration", [20.0, 1.0], ids=["first half", "second half"])
async def test_cancelled_examination_leaves_nothing_behind(duration: float) -> None:
    """The collector is restored, the memory lock is free, and no snapshot runs."""
    callbacks, thresholds = list(gc.callbacks), gc.get_threshold()
    worker = ExaminedWorker(current_main_loop())

    with trio.move_on_after(0.75) as scope:
        await examine(worker, Caller(), duration)

    assert scope.cancelled_caught
    assert list(gc.callbacks) == callbacks
    assert gc.get_threshold() == thresholds
    acquire_memory_lock("test").release()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222 (it does not wait)
