"""Test that the doctor finds why real processes stand still."""

from __future__ import annotations

import pytest

from tests.kits.examined import ALL, LOOPS, diagnose, kinds, line_of

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("backend", ["trio"])
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
