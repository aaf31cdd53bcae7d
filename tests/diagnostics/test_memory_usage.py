"""Reading memory: against psutil, and of what is gone."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from trio_supervisor.diagnostics.memory_usage import host_free_memory, read_memory


@pytest.mark.parametrize("is_full", [False, True])
def test_read_memory_agrees_with_psutil(is_full: bool) -> None:
    found = read_memory(os.getpid(), is_full=is_full)
    assert found is not None
    expected = psutil.Process().memory_full_info()
    # Between the two readings this process goes on, and the kernel counts in batches.
    assert found[0] == pytest.approx(expected.rss, rel=0.1)
    if is_full:
        assert found[1] == pytest.approx(expected.uss, rel=0.1)
    else:
        assert found[1] is None


def test_read_memory_of_exited_process_is_none() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert read_memory(process.pid, is_full=False) is None
    assert read_memory(process.pid, is_full=True) is None


def test_read_memory_of_zombie_is_no_error() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    for is_full in (False, True):
        found = read_memory(process.pid, is_full=is_full)
        assert found is None or found[0] == 0
    process.wait()


def test_host_free_memory_is_positive() -> None:
    assert 0 < host_free_memory() <= psutil.virtual_memory().total
