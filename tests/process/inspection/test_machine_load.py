"""Measurements of the machine and of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from trio_supervisor.process.inspection.machine_load import LinuxMachine, _psi

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

SPIN = "while True: pass"


@contextmanager
def running(program: str, core: int) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", program],
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def wait_until(is_true: object) -> None:
    end = time.monotonic() + 60
    while not is_true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_queued_grows_when_cpu_is_shared() -> None:
    machine, core = LinuxMachine(), min(os.sched_getaffinity(0))
    with running(SPIN, core) as first, running(SPIN, core):
        wait_until(lambda: max(machine.queued(first).values()) > 0.3)


def test_queued_stays_for_sleeping_process() -> None:
    machine = LinuxMachine()
    program = "import time; print(flush=True); time.sleep(1000)"
    with running(program, min(os.sched_getaffinity(0))) as process_id:
        wait_until(lambda: machine.queued(process_id))
        before = max(machine.queued(process_id).values())
        time.sleep(0.2)
        assert max(machine.queued(process_id).values()) - before < 0.2


def test_is_stopped() -> None:
    machine = LinuxMachine()
    with running(SPIN, min(os.sched_getaffinity(0))) as process_id:
        assert not machine.is_stopped(process_id)
        os.kill(process_id, signal.SIGSTOP)
        wait_until(lambda: machine.is_stopped(process_id))
        os.kill(process_id, signal.SIGCONT)
        wait_until(lambda: not machine.is_stopped(process_id))


def test_measurements_of_exited_process_are_zero() -> None:
    machine = LinuxMachine()
    assert machine.queued(2**22 + 1) == {}
    assert not machine.is_stopped(2**22 + 1)
    assert machine.stalled(2**22 + 1) >= 0


def test_pressure() -> None:
    machine = LinuxMachine()
    assert 0 <= machine.pressure().cpu <= 100
    assert machine.cores >= 1


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [("some", "avg10", 12.5), ("full", "total", 42.0), ("full", "avg10", 0.0)],
)
def test_psi_reads_value(line: str, name: str, value: float) -> None:
    text = (
        "some avg10=12.50 avg60=1.19 avg300=0.95 total=7790286\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=42\n"
    )
    assert _psi(text, line, name) == value


@pytest.mark.parametrize("text", ["", "some\n", "some avg10\n", "some avg10=x\n"])
def test_psi_of_unknown_format_is_zero(text: str) -> None:
    assert _psi(text, "some", "avg10") == 0
