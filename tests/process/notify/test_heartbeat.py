"""Heartbeats in shared memory, within one process and between two."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from trio_supervisor.process.notify.heartbeat import (
    HeartbeatReader,
    HeartbeatWriter,
    open_heartbeat,
    use_heartbeat,
)

DAY = 86_400 * 10**9


@pytest.fixture
def heartbeat() -> Iterator[HeartbeatReader]:
    with open_heartbeat() as heartbeat:
        yield heartbeat


@pytest.fixture
def writer(heartbeat: HeartbeatReader) -> Iterator[HeartbeatWriter]:
    assert heartbeat.descriptor is not None
    writer = use_heartbeat(os.dup(heartbeat.descriptor))
    yield writer
    writer.close()


def age(heartbeat: HeartbeatReader) -> float:
    found = heartbeat.age()
    assert found is not None
    return found


def test_age_without_heartbeat_is_none(
    heartbeat: HeartbeatReader, writer: HeartbeatWriter
) -> None:
    assert heartbeat.age() is None


def test_age_is_time_since_heartbeat(
    heartbeat: HeartbeatReader, writer: HeartbeatWriter
) -> None:
    before = time.monotonic()
    writer.beat()
    after = time.monotonic()
    while time.monotonic() < after + 0.05:
        pass
    first = age(heartbeat)
    assert 0.05 <= first <= time.monotonic() - before
    assert age(heartbeat) > first


def test_heartbeat_works_after_closing_descriptors(
    heartbeat: HeartbeatReader, writer: HeartbeatWriter
) -> None:
    heartbeat.close_descriptor()
    assert heartbeat.descriptor is None
    writer.beat()
    assert age(heartbeat) < 60


@pytest.mark.parametrize("lie", [DAY, -DAY], ids=["future", "past"])
def test_age_of_impossible_time_counts_as_now(
    heartbeat: HeartbeatReader, writer: HeartbeatWriter, lie: int
) -> None:
    """Such as in another time namespace; a writer that stops is still noticed."""
    assert heartbeat.age() is None
    writer._slot[0] = max(1, time.monotonic_ns() + lie)
    first = age(heartbeat)
    assert first == 0
    assert age(heartbeat) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="sealed files are Linux's")
def test_heartbeat_page_cannot_be_truncated(
    heartbeat: HeartbeatReader,
) -> None:
    """Reading a truncated page would kill the controller by SIGBUS."""
    assert heartbeat.descriptor is not None
    for size in (0, 2**20):
        with pytest.raises(PermissionError):
            os.ftruncate(heartbeat.descriptor, size)
    assert heartbeat.age() is None


def test_age_of_heartbeat_of_other_process(
    heartbeat: HeartbeatReader,
) -> None:
    program = (
        "import sys\n"
        "from trio_supervisor.process.notify.heartbeat import use_heartbeat\n"
        "use_heartbeat(int(sys.argv[1])).beat()\n"
    )
    assert heartbeat.descriptor is not None
    subprocess.run(
        [sys.executable, "-c", program, str(heartbeat.descriptor)],
        pass_fds=[heartbeat.descriptor],
        check=True,
    )
    assert age(heartbeat) < 60


def test_age_after_close_is_none() -> None:
    with open_heartbeat() as heartbeat:
        assert heartbeat.descriptor is not None
        writer = use_heartbeat(os.dup(heartbeat.descriptor))
        writer.beat()
        assert heartbeat.age() is not None
    assert heartbeat.age() is None
    heartbeat.close()
    writer.beat()
    writer.close()
    writer.close()


def test_age_excludes_pauses_by_diagnostics(
    heartbeat: HeartbeatReader, writer: HeartbeatWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [DAY]
    monkeypatch.setattr("trio_supervisor.process.notify.heartbeat._now", lambda: now[0])
    writer.beat()
    assert age(heartbeat) == 0
    now[0] += 2 * 10**9
    with writer.held():
        now[0] += 5 * 10**9
        assert age(heartbeat) == 2
    assert age(heartbeat) == 2
    now[0] += 10**9
    assert age(heartbeat) == 3
    with writer.held():
        now[0] += 90 * 10**9
    assert age(heartbeat) == 3 + 5 + 90 - 30  # and no more than that
    writer.beat()
    assert age(heartbeat) == 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time [ns], which a test changes."""
    now = [DAY]
    monkeypatch.setattr("trio_supervisor.process.notify.heartbeat._now", lambda: now[0])
    return now


def test_lag_of_what_has_no_event_loop_is_unknown(
    heartbeat: HeartbeatReader, writer: HeartbeatWriter
) -> None:
    assert heartbeat.lag() is None
    writer.beat()
    assert heartbeat.lag() is None


def test_lag_is_how_late_a_heartbeat_was(
    heartbeat: HeartbeatReader, writer: HeartbeatWriter, clock: list[int]
) -> None:
    writer.beat_every(10)
    clock[0] += 10 * 10**9
    assert heartbeat.lag() == 0
    clock[0] += 3 * 10**9
    assert heartbeat.lag() == 3  # it is late now
    assert heartbeat.age() == 13
    writer.beat_every(10)
    assert heartbeat.lag() == 3  # it was late
    assert heartbeat.age() == 0
    clock[0] += 4 * 10**9
    writer.beat()  # by the application: says nothing about the loop
    clock[0] += 6 * 10**9
    writer.beat_every(10)
    assert heartbeat.lag() == 0


def test_lag_excludes_pauses_by_diagnostics(
    heartbeat: HeartbeatReader, writer: HeartbeatWriter, clock: list[int]
) -> None:
    writer.beat_every(10)
    clock[0] += 9 * 10**9
    with writer.held():
        clock[0] += 5 * 10**9
    writer.beat_every(10)
    assert heartbeat.lag() == 0
    clock[0] += 12 * 10**9
    writer.beat_every(10)
    assert heartbeat.lag() == 2


def test_lag_of_arbitrary_values_is_unknown(
    heartbeat: HeartbeatReader, writer: HeartbeatWriter
) -> None:
    for due, lag in ((1, 0), (2**63, 2**63), (2**64 - 1, 2**64 - 1)):
        writer._slot[3], writer._slot[4] = due, lag
        found = heartbeat.lag()
        assert found is None or 0 <= found <= 86_400
    heartbeat.close()
    assert heartbeat.lag() is None
