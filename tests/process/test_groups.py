"""Process groups of real processes, by number."""

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
    """A process in a group of its own, past its first lines."""
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


def test_a_group_exists_until_its_last_process_is_reaped() -> None:
    with sleeper() as process:
        assert group_exists(process.pid)
        process.kill()
        await_zombie(process)
        assert group_exists(process.pid)
        process.wait()
        assert not group_exists(process.pid)


def test_a_zombie_is_no_living_member() -> None:
    with sleeper() as process:
        assert members(process.pid) == 1
        process.kill()
        await_zombie(process)
        assert members(process.pid) == 0


def test_a_stopped_process_is_a_living_member() -> None:
    with sleeper() as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert members(process.pid) == 1


def test_other_groups_are_none_of_ours() -> None:
    with sleeper() as one, sleeper() as other:
        [descriptor] = open_members(is_live_member(one.pid))
        signal_descriptor(descriptor, signal.SIGKILL)
        os.close(descriptor)
        assert one.wait() == -signal.SIGKILL
        assert other.poll() is None


def test_a_signal_to_one_that_is_gone_hits_nobody() -> None:
    with sleeper() as process:
        [descriptor] = open_members(is_live_member(process.pid))
        process.kill()
        process.wait()
        signal_descriptor(descriptor, signal.SIGKILL)
        os.close(descriptor)


def test_a_process_may_be_called_anything() -> None:
    """Its name stands in /proc/PID/stat, before the group, as it is."""
    program = (
        "import os, sys, time\n"
        "open('/proc/self/comm', 'w').write(') Z 1 (x')\n"
        "print(flush=True); time.sleep(3600)\n"
    )
    with sleeper(program) as process:
        assert members(process.pid) == 1


def test_one_that_changed_between_two_looks_is_left_out() -> None:
    """Its number may have been given to another meanwhile: no descriptor is kept."""
    asked: list[int] = []

    def only_at_first(pid: int) -> bool:
        asked.append(pid)
        return pid == os.getpid() and asked.count(pid) == 1

    before = len(os.listdir("/proc/self/fd"))
    assert open_members(only_at_first) == []
    assert asked.count(os.getpid()) == 2
    assert len(os.listdir("/proc/self/fd")) == before
