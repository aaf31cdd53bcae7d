"""The record of the line that an import is at."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import pytest

from trio_supervisor.process.imports import import_watch
from trio_supervisor.process.imports.import_report import last_place, read_report
from trio_supervisor.process.imports.import_watch import open_report, record_import

NAME = os.path.basename(__file__)


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(import_watch, "_INTERVAL", 0.01)
    descriptor = open_report()
    yield descriptor
    os.close(descriptor)


def threads() -> set[str]:
    return set(os.listdir("/proc/self/task"))


def wait_place(report: int) -> str:
    deadline = time.monotonic() + 60
    while (place := last_place(read_report(report))) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return place.text


def test_line_of_an_import_that_waits(report: int) -> None:
    with record_import(report):
        text = wait_place(report)
    assert text.startswith(f"{NAME}, line ") or f"{NAME}, line " in text


@pytest.mark.skipif(sys.platform != "linux", reason="libc is found by name")
def test_line_of_an_import_in_c_code_that_holds_the_gil(
    report: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_watch, "_INTERVAL", 60.0)  # as if it could not run
    monkeypatch.setattr(import_watch, "_GIL_HELD", 0.05)
    hold = ctypes.PyDLL(None).usleep
    with record_import(report):
        while not read_report(report):
            hold(100_000)
    assert "Timeout (" in read_report(report)
    place = last_place(read_report(report))
    assert place is not None
    assert NAME in place.text


def test_no_thread_is_left_and_threading_knows_of_none(report: int) -> None:
    faulthandler.cancel_dump_traceback_later()  # that of pytest
    known, before = threading.active_count(), threads()
    with record_import(report):
        assert threading.active_count() == known
        wait_place(report)
    assert threading.active_count() == known
    assert threads() <= before


@pytest.mark.slow
def test_the_records_of_a_busy_import_do_not_end_it() -> None:
    """The stacks change while they are recorded: reading them needs the GIL."""
    code = """
        import time
        from trio_supervisor.process.imports import import_watch
        import_watch._INTERVAL = 0.001
        def descend(n):
            return descend(n - 1) + 1 if n else len([*range(20)])
        with import_watch.record_import(import_watch.open_report()):
            end = time.monotonic() + 3
            while time.monotonic() < end:
                descend(80)
                exec(compile("def g(x):\\n return [y for y in range(x)]", "m", "exec"))
    """
    program = textwrap.dedent(code)
    subprocess.run([sys.executable, "-c", program], check=True)
