"""Heartbeats in shared memory: between two ends, and between two processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from trio_supervisor.process.notify.heartbeat import Heart, Pulse, open_pulse, use_pulse

DAY = 86_400 * 10**9


@pytest.fixture
def pulse() -> Iterator[Pulse]:
    with open_pulse() as pulse:
        yield pulse


@pytest.fixture
def heart(pulse: Pulse) -> Iterator[Heart]:
    assert pulse.descriptor is not None
    heart = use_pulse(os.dup(pulse.descriptor))
    yield heart
    heart.close()


def age(pulse: Pulse) -> float:
    found = pulse.age()
    assert found is not None
    return found


def test_without_a_heartbeat_there_is_no_age(pulse: Pulse, heart: Heart) -> None:
    assert pulse.age() is None


def test_the_age_is_that_of_the_heartbeat_not_of_the_look(
    pulse: Pulse, heart: Heart
) -> None:
    before = time.monotonic()
    heart.beat()
    after = time.monotonic()
    while time.monotonic() < after + 0.05:
        pass
    first = age(pulse)
    assert 0.05 <= first <= time.monotonic() - before
    assert age(pulse) > first


def test_it_lives_on_without_any_descriptor(pulse: Pulse, heart: Heart) -> None:
    pulse.handed_over()
    assert pulse.descriptor is None
    heart.beat()
    assert age(pulse) < 60


@pytest.mark.parametrize("lie", [DAY, -DAY], ids=["future", "past"])
def test_a_time_that_cannot_be_counts_as_now(
    pulse: Pulse, heart: Heart, lie: int
) -> None:
    """As of a process in a time namespace; a heart that stops is still seen."""
    assert pulse.age() is None
    heart._slot[0] = max(1, time.monotonic_ns() + lie)
    first = age(pulse)
    assert first == 0
    assert age(pulse) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="sealed files are Linux's")
def test_the_page_cannot_be_taken_from_under_the_controller(pulse: Pulse) -> None:
    """Reading what was cut off would end it by SIGBUS."""
    assert pulse.descriptor is not None
    for size in (0, 2**20):
        with pytest.raises(PermissionError):
            os.ftruncate(pulse.descriptor, size)
    assert pulse.age() is None


def test_another_process_is_heard_though_nobody_reads(pulse: Pulse) -> None:
    program = (
        "import sys\n"
        "from trio_supervisor.process.notify.heartbeat import use_pulse\n"
        "use_pulse(int(sys.argv[1])).beat()\n"
    )
    assert pulse.descriptor is not None
    subprocess.run(
        [sys.executable, "-c", program, str(pulse.descriptor)],
        pass_fds=[pulse.descriptor],
        check=True,
    )
    assert age(pulse) < 60


def test_after_the_end_there_is_no_age() -> None:
    with open_pulse() as pulse:
        assert pulse.descriptor is not None
        heart = use_pulse(os.dup(pulse.descriptor))
        heart.beat()
        assert pulse.age() is not None
    assert pulse.age() is None
    pulse.close()
    heart.beat()
    heart.close()
    heart.close()


def test_the_time_that_a_look_holds_it_up_is_no_silence(
    pulse: Pulse, heart: Heart, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [DAY]
    monkeypatch.setattr("trio_supervisor.process.notify.heartbeat._now", lambda: now[0])
    heart.beat()
    assert age(pulse) == 0
    now[0] += 2 * 10**9
    with heart.held():
        now[0] += 5 * 10**9
        assert age(pulse) == 2
    assert age(pulse) == 2
    now[0] += 10**9
    assert age(pulse) == 3
    with heart.held():
        now[0] += 90 * 10**9
    assert age(pulse) == 3 + 5 + 90 - 30  # and no more than that
    heart.beat()
    assert age(pulse) == 0
