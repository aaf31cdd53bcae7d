"""Test how a cgroup is divided, in a directory that looks like one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kits.cgroups import FakeCgroups, cgroups
from trio_supervisor.process.cgroups import tree as tree_module
from trio_supervisor.process.cgroups.limits import CgroupLimits
from trio_supervisor.process.cgroups.tree import CgroupTree, open_cgroups
from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.spawn.refused import AttributeRefusedError

__all__ = ["cgroups"]
pytestmark = pytest.mark.skipif(not IS_LINUX, reason="Linux only")

LIMITS = CgroupLimits(pids_max=7, memory_max=1000)


@pytest.fixture(autouse=True)
def moves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Record who moves where: the kernel takes a process out of its old cgroup."""
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(
        tree_module,
        "move_all",
        lambda source, target: found.append((source.name, target.name)),
    )
    return found


def names(cgroups: FakeCgroups) -> list[str]:
    return sorted(path.name for path in cgroups.base.iterdir() if path.is_dir())


async def test_first_limits_divide_the_cgroup_and_the_end_undoes_it(
    cgroups: FakeCgroups, moves: list[tuple[str, str]]
) -> None:
    control = cgroups.base / "cgroup.subtree_control"
    async with open_cgroups(cgroups.root) as tree:
        assert names(cgroups) == []
        leaf = tree.open_leaf("web.0", LIMITS)
        assert moves == [("app.service", "supervisor")]
        assert control.read_text() == "+memory +pids"
        control.write_text("memory pids")
        assert (leaf.path / "pids.max").read_text() == "7"
        assert (leaf.path / "memory.max").read_text() == "1000"
        tree.open_leaf("web.1", CgroupLimits(cpu_max=0.5))
        assert control.read_text() == "+cpu"
        assert names(cgroups) == ["supervisor", "web.0", "web.1"]
    assert names(cgroups) == []
    assert control.read_text() == "-cpu -memory -pids"
    assert moves == [("app.service", "supervisor"), ("supervisor", "app.service")]


async def test_without_limits_nothing_is_changed(cgroups: FakeCgroups) -> None:
    async with open_cgroups(cgroups.root):
        pass
    assert names(cgroups) == []


async def test_second_process_of_a_worker_has_a_cgroup_of_its_own(
    cgroups: FakeCgroups,
) -> None:
    """The one of the previous generation may still run, for the length of a reload."""
    async with open_cgroups(cgroups.root) as tree:
        first, second = (tree.open_leaf("web.0", LIMITS) for _ in range(2))
        assert (first.path.name, second.path.name) == ("web.0", "web.0-2")
        tree.release(first)
        assert tree.open_leaf("web.0", LIMITS).path.name == "web.0"


async def test_cgroup_with_processes_is_removed_later(cgroups: FakeCgroups) -> None:
    async with open_cgroups(cgroups.root) as tree:
        leaf = tree.open_leaf("web.0", LIMITS)
        (leaf.path / "cgroup.events").write_text("populated 1\n")
        tree.release(leaf)
        assert tree.open_leaf("web.0", LIMITS).path.name == "web.0-2"
        (leaf.path / "cgroup.events").write_text("populated 0\n")
        tree.open_leaf("api.0", LIMITS)
        assert names(cgroups) == ["api.0", "supervisor", "web.0-2"]


async def test_cgroups_of_a_killed_controller_are_removed(cgroups: FakeCgroups) -> None:
    for name in ("web.0", "web.12-3", "other", "a.b"):
        cgroups.make(f"app.service/{name}")
    used = cgroups.make("app.service/web.1")
    (used / "cgroup.events").write_text("populated 1\n")
    async with open_cgroups(cgroups.root) as tree:
        tree.open_leaf("api.0", LIMITS)
        assert names(cgroups) == ["a.b", "api.0", "other", "supervisor", "web.1"]


async def test_process_that_began_in_the_leaf_stays_there(
    cgroups: FakeCgroups, moves: list[tuple[str, str]]
) -> None:
    cgroups.make("app.service/supervisor")
    cgroups.say(cgroup="0::/app.service/supervisor\n")
    async with open_cgroups(cgroups.root) as tree:
        tree.open_leaf("web.0", LIMITS)
    assert names(cgroups) == ["supervisor"]
    assert moves == [("app.service", "supervisor")]


@pytest.mark.parametrize("name", ["../web.0", "web.0/..", "web", "cgroup.procs", ""])
async def test_only_names_of_workers_become_directories(
    cgroups: FakeCgroups, name: str
) -> None:
    async with open_cgroups(cgroups.root) as tree:
        with pytest.raises(ValueError, match="not the name of a worker"):
            tree.open_leaf(name, LIMITS)


async def test_limit_that_the_kernel_refuses_is_named(
    cgroups: FakeCgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_text

    def refuse(path: Path, text: str) -> int:
        if path.name == "pids.max":
            raise OSError(22, "Invalid argument")
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", refuse)
    async with open_cgroups(cgroups.root) as tree:
        with pytest.raises(AttributeRefusedError) as caught:
            tree.open_leaf("web.0", LIMITS)
        assert caught.value.option == "pids_max"
        where = cgroups.base / "web.0"
        assert str(caught.value) == (
            f"cannot set pids_max=7: Invalid argument (cgroup {where})"
        )
        assert names(cgroups) == ["supervisor"]


def test_refusal_says_what_is_missing(cgroups: FakeCgroups) -> None:
    tree = CgroupTree(cgroups.root)
    assert tree.refusal(CgroupLimits()) is None
    assert tree.refusal(LIMITS) is None
    parent = os.getppid()
    (cgroups.base / "cgroup.procs").write_text(f"{parent}\n")
    assert f"pid {parent} (" in str(tree.refusal(LIMITS))
    (cgroups.base / "cgroup.controllers").write_text("memory\n")
    refused = tree.refusal(LIMITS)
    assert refused is not None
    assert refused.option == "pids_max"
    assert str(refused).startswith(
        "cannot set pids_max=7: the pids controller is not available in the cgroup "
    )
    cgroups.say(cgroup="0::/\n")
    assert "cannot set memory_max=1000: the controller runs in the root cgroup" in str(
        tree.refusal(LIMITS)
    )
    cgroups.say(cgroup="4:memory:/\n", mountinfo="")
    assert "limits need cgroup v2, and this machine has the memory controller in" in (
        str(tree.refusal(LIMITS))
    )
    assert names(cgroups) == []


def test_refused_division_is_an_error_of_the_first_limit(cgroups: FakeCgroups) -> None:
    (cgroups.base / "cgroup.controllers").write_text("memory\n")
    with pytest.raises(AttributeRefusedError) as caught:
        CgroupTree(cgroups.root).open_leaf("web.0", LIMITS)
    assert caught.value.option == "memory_max"
    assert "the pids controller is not available" in str(caught.value)
