"""Test the counters of cgroups in a directory that stands for the root."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_supervisor.policy.out_of_memory import CgroupMemory
from trio_supervisor.process.inspection.cgroup_memory import (
    memory_cgroup,
    read_cgroup_memory,
)

MIB = 2**20


def write(root: Path, **texts: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in {"cgroup_procs": "", **texts}.items():
        (root / name.replace("_", ".", 1)).write_text(text)


def write_process(root: Path, text: str) -> None:
    (root / "proc/7").mkdir(parents=True)
    (root / "proc/7/cgroup").write_text(text)


def test_second_version_reads_kills_and_limits_up_to_the_root(tmp_path: Path) -> None:
    write_process(tmp_path, "0::/shop.slice/web\n")
    mount = tmp_path / "sys/fs/cgroup"
    write(mount)
    events = "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n"
    write(mount / "shop.slice", memory_events=events, memory_max=f"{900 * MIB}\n")
    write(mount / "shop.slice/web", memory_events=events, memory_max="max\n")

    group = memory_cgroup(7, tmp_path)
    assert group == mount / "shop.slice/web"
    assert read_cgroup_memory(group) == CgroupMemory(kills=1, reached=((900 * MIB, 2),))


def test_first_version_reads_kills_and_limits(tmp_path: Path) -> None:
    write_process(tmp_path, "9:name=systemd:/\n4:cpu,memory:/web\n0::/\n")
    mount = tmp_path / "sys/fs/cgroup/memory"
    control = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"
    files = {"memory_oom_control": control, "memory_failcnt": "17\n"}
    write(mount, memory_limit_in_bytes="9223372036854771712\n", **files)
    write(mount / "web", memory_limit_in_bytes=f"{64 * MIB}\n", **files)

    group = memory_cgroup(7, tmp_path)
    assert group == mount / "web"
    assert read_cgroup_memory(group) == CgroupMemory(kills=3, reached=((64 * MIB, 17),))


def test_first_version_in_container_uses_mounted_root(tmp_path: Path) -> None:
    write_process(tmp_path, "4:memory:/docker/0123\n")
    mount = tmp_path / "sys/fs/cgroup/memory"
    write(mount, memory_oom_control="oom_kill 0\n")
    assert memory_cgroup(7, tmp_path) == mount


@pytest.mark.parametrize(
    "text", [None, "", "0::/\n", "garbage\n"], ids=["gone", "empty", "root", "garbage"]
)
def test_process_without_memory_cgroup_has_none(
    tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        write_process(tmp_path, text)
    assert memory_cgroup(7, tmp_path) is None


@pytest.mark.parametrize("control", ["oom_kill_disable 0\n", "oom_kill many\n"])
def test_counter_that_kernel_does_not_have_is_unknown(
    tmp_path: Path, control: str
) -> None:
    write(tmp_path, memory_oom_control=control)
    assert read_cgroup_memory(tmp_path) is None


def test_removed_cgroup_is_unknown(tmp_path: Path) -> None:
    assert read_cgroup_memory(tmp_path / "gone") is None
