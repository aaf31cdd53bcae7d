"""Test that the doctor finds what grows in real processes."""

from __future__ import annotations

import pytest

from tests.kits.examined import ALL, LOOPS, diagnose, kinds, line_of

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("backend", ALL)
def test_examine_descriptor_leak_names_target(backend: str) -> None:
    diagnosis = diagnose(backend, "descriptors")

    assert kinds(diagnosis)[0] == "descriptors", diagnosis.data
    assert any("/dev/null" in line for line in diagnosis.findings[0].evidence)


def test_examine_connections_closed_by_peer_are_found() -> None:
    diagnosis = diagnose("asyncio", "hung_up")

    assert kinds(diagnosis) == ["descriptors"], diagnosis.data
    assert "30 are connections" in diagnosis.findings[0].text


@pytest.mark.parametrize("backend", ["trio", "sync"])
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


def test_examine_memory_running_out_is_found() -> None:
    """The leak that causes it is found too."""
    diagnosis = diagnose("trio", "memory")

    assert kinds(diagnosis) == ["leak", "memory"], diagnosis.data
    assert {finding.severity.value for finding in diagnosis.findings} == {"danger"}


def test_examine_own_descriptors_do_not_count() -> None:
    diagnosis = diagnose("trio", "idle")

    assert len(set(diagnosis.facts["descriptors"]["counts"])) == 1
