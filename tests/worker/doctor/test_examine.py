"""Test that the doctor examines real processes without harm."""

from __future__ import annotations

import gc
import os

import pytest
import trio

from tests.kits.examined import ALL, diagnose, run_process
from tests.kits.faulty_process import Caller, ExaminedWorker
from trio_supervisor.diagnostics.locations import thread_locations
from trio_supervisor.diagnostics.memory.memory_lock import acquire_memory_lock
from trio_supervisor.diagnostics.tasks.main_loop import current_main_loop
from trio_supervisor.worker.doctor.examine import examine

pytestmark = pytest.mark.slow


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


def test_thread_locations_omit_calling_thread() -> None:
    assert not any(location.file == __file__ for location in thread_locations())


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
