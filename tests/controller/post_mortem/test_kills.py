"""Test which kills explain which exits, in a directory that stands for the root."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_supervisor.controller.post_mortem.kills import Kills

LIMIT = 512 * 2**20
OOM = "out of memory: cgroup limit 512 MiB"
OUTSIDE = "sent from outside"


class World:
    """A machine with one memory cgroup (version 2)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.group = root / "sys/fs/cgroup/web"
        self.group.mkdir(parents=True)
        (self.group / "cgroup.procs").write_text("")
        (self.group / "memory.max").write_text(f"{LIMIT}\n")
        self.kernel_log = root / "kmsg"
        self.kills = Kills(root, self.kernel_log)
        self.count(0)

    def count(self, kills: int) -> None:
        text = f"oom {kills}\noom_kill {kills}\n"
        (self.group / "memory.events").write_text(text)

    def start(self, process_id: int) -> None:
        directory = self.root / f"proc/{process_id}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup").write_text("0::/web\n")
        self.kills.watch(process_id)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_two_workers_killed_at_once_are_both_explained(world: World) -> None:
    world.start(1)
    world.start(2)
    world.count(2)
    assert await world.kills.explain(1) == OOM
    assert await world.kills.explain(2) == OOM


async def test_kill_of_one_worker_does_not_explain_exit_of_another(
    world: World,
) -> None:
    world.start(1)
    world.start(2)
    world.count(1)
    assert await world.kills.explain(1) == OOM
    assert await world.kills.explain(2) == OUTSIDE


async def test_earlier_kill_does_not_explain_exit_of_replacement(world: World) -> None:
    world.start(1)
    world.count(1)
    assert await world.kills.explain(1) == OOM
    world.kills.forget(1)
    world.start(2)
    assert await world.kills.explain(2) == OUTSIDE
    world.count(2)
    assert await world.kills.explain(2) == OOM


async def test_cgroup_of_one_worker_is_read_before_it_is_removed(world: World) -> None:
    world.start(1)
    world.count(1)
    world.kills.note_exit(1)
    (world.group / "memory.events").unlink()
    assert await world.kills.explain(1) == OOM


async def test_counters_beside_version_1_are_found(tmp_path: Path) -> None:
    """A machine may have both, and the memory controller in version 2."""
    world = World(tmp_path)
    (tmp_path / "sys/fs/cgroup/unified").mkdir()
    world.group.rename(tmp_path / "sys/fs/cgroup/unified/web")
    world.start(1)
    world.group = tmp_path / "sys/fs/cgroup/unified/web"
    world.count(1)
    assert await world.kills.explain(1) == OOM


async def test_kernel_log_explains_where_there_are_no_counters(world: World) -> None:
    (world.group / "memory.events").unlink()
    world.start(1)
    late = "9" * 15
    world.kernel_log.write_text(
        f"3,1,{late},-;Out of memory: Killed process 1 (python) total-vm:1kB\n"
    )
    assert await world.kills.explain(1) == "out of memory: host"


async def test_unknown_process_is_not_explained(world: World) -> None:
    assert await world.kills.explain(5) == OUTSIDE
