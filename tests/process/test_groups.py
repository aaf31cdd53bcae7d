"""Inspecting process groups of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from trio_supervisor.process.groups import (
    group_exists,
    is_live_member,
    open_members,
    signal_descriptor,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc and pidfds")

_SLEEP = "import sys, time; print(flush=True); time.sleep(3600)"


@contextmanager
def sleeper(program: str = _SLEEP) -> Iterator[subprocess.Popen[bytes]]:
    """A running process in its own group."""
    process = subprocess.Popen(
        [sys.executable, "-c", program], process_group=0, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        process.stdout.read(1)
        yield process
        process.kill()


def members(group: int) -> int:
    descriptors = open_members(is_live_member(group))
    for descriptor in descriptors:
        os.close(descriptor)
    return len(descriptors)


def await_zombie(process: subprocess.Popen[bytes]) -> None:
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def test_group_exists_until_last_process_is_reaped() -> None:
    with sleeper() as process:
        assert group_exists(process.pid)
        process.kill()
        await_zombie(process)
        assert group_exists(process.pid)
        process.wait()
        assert not group_exists(process.pid)


def test_open_members_excludes_zombie() -> None:
    with sleeper() as process:
        assert members(process.pid) == 1
        process.kill()
        await_zombie(process)
        assert members(process.pid) == 0


def test_open_members_includes_stopped_process() -> None:
    with sleeper() as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert members(process.pid) == 1


def test_open_members_excludes_other_groups() -> None:
    with sleeper() as one, sleeper() as other:
        [descriptor] = open_members(is_live_member(one.pid))
        signal_descriptor(descriptor, signal.SIGKILL)
        os.close(descriptor)
        assert one.wait() == -signal.SIGKILL
        assert other.poll() is None


def test_signal_descriptor_of_exited_process_does_nothing() -> None:
    with sleeper() as process:
        [descriptor] = open_members(is_live_member(process.pid))
        process.kill()
        process.wait()
        signal_descriptor(descriptor, signal.SIGKILL)
        os.close(descriptor)


def test_read_stat_with_any_process_name() -> None:
    """/proc/PID/stat contains the unescaped name before the group."""
    program = (
        "import os, sys, time\n"
        "open('/proc/self/comm', 'w').write(') Z 1 (x')\n"
        "print(flush=True); time.sleep(3600)\n"
    )
    with sleeper(program) as process:
        assert members(process.pid) == 1


def test_open_members_rechecks_after_opening() -> None:
    """Its number may have been reused, so the pidfd is closed."""
    asked: list[int] = []

    def only_at_first(pid: int) -> bool:
        asked.append(pid)
        return pid == os.getpid() and asked.count(pid) == 1

    before = len(os.listdir("/proc/self/fd"))
    assert open_members(only_at_first) == []
    assert asked.count(os.getpid()) == 2
    assert len(os.listdir("/proc/self/fd")) == before
