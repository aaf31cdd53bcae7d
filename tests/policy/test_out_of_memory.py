"""Test who sent a SIGKILL, from counters and kernel messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.policy.out_of_memory import (
    OUTSIDE,
    CgroupMemory,
    KernelMessage,
    kill_reason,
)

MIB = 2**20
IN_CGROUP = (
    "Memory cgroup out of memory: Killed process 4711 (python) total-vm:120kB, "
    "anon-rss:100kB, file-rss:4kB, shmem-rss:0kB, UID:0 pgtables:40kB oom_score_adj:0"
)
ON_HOST = "Out of memory: Killed process 4711 (python) total-vm:120kB, anon-rss:100kB"


def memory(kills: int, *reached: tuple[int, int]) -> CgroupMemory:
    return CgroupMemory(kills=kills, reached=reached)


def test_kill_counted_by_limited_cgroup_names_its_limit() -> None:
    before = memory(3, (512 * MIB, 5), (900 * MIB, 1))
    after = memory(4, (512 * MIB, 6), (900 * MIB, 1))
    assert kill_reason(1, before, after) == "out of memory: cgroup limit 512 MiB"


def test_kill_by_limit_of_parent_names_that_limit() -> None:
    before = memory(3, (512 * MIB, 5), (900 * MIB + MIB // 2, 1))
    after = memory(4, (512 * MIB, 5), (900 * MIB + MIB // 2, 2))
    assert kill_reason(1, before, after) == "out of memory: cgroup limit 900.5 MiB"


def test_kill_without_reached_limit_was_for_the_host() -> None:
    before, after = memory(0, (512 * MIB, 5)), memory(1, (512 * MIB, 5))
    assert kill_reason(1, before, after) == "out of memory: host"


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_each_counted_kill_explains_one_exit(
    before: int, more: int, claimed: int
) -> None:
    reason = kill_reason(1, memory(before), memory(before + more), claimed=claimed)
    assert (reason == OUTSIDE) == (more <= claimed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (IN_CGROUP, "out of memory: cgroup limit 64 MiB"),
        (IN_CGROUP.replace("Killed", "Kill"), "out of memory: cgroup limit 64 MiB"),
        (ON_HOST, "out of memory: host"),
        (
            ON_HOST.replace("memory:", "memory (oom_kill_allocating_task):"),
            "out of memory: host",
        ),
        (ON_HOST.replace("4711", "47110"), OUTSIDE),
        ("oom_reaper: reaped process 4711 (python)", OUTSIDE),
    ],
)
def test_kernel_message_about_the_process_explains(text: str, expected: str) -> None:
    after = memory(1, (64 * MIB, 3))
    messages = [KernelMessage(time=10.0, text=text)]
    assert kill_reason(4711, None, after, messages=messages) == expected


def test_kernel_message_without_known_limit_says_cgroup_limit() -> None:
    messages = [KernelMessage(time=10.0, text=IN_CGROUP)]
    reason = kill_reason(4711, None, None, messages=messages)
    assert reason == "out of memory: cgroup limit"


def test_kernel_message_before_start_means_another_process() -> None:
    messages = [KernelMessage(time=10.0, text=ON_HOST)]
    assert kill_reason(4711, None, None, messages=messages, since=10.1) == OUTSIDE
