"""Test whose processes are in a cgroup, and how they leave it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.kits.cgroups import FakeCgroups, cgroups
from trio_supervisor.process.cgroups import residents
from trio_supervisor.process.cgroups.residents import move_all, others_problem
from trio_supervisor.process.groups import IS_LINUX

__all__ = ["cgroups"]
pytestmark = pytest.mark.skipif(not IS_LINUX, reason="Linux only")


@pytest.fixture
def child() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def test_descendants_are_not_others(cgroups: FakeCgroups, child: int) -> None:
    (cgroups.base / "cgroup.procs").write_text(f"{os.getpid()}\n{child}\n")
    assert others_problem(cgroups.base) == ""


def test_others_are_named(cgroups: FakeCgroups) -> None:
    parent = os.getppid()
    (cgroups.base / "cgroup.procs").write_text(f"{os.getpid()}\n{parent}\n0\n0\n0\n")
    problem = others_problem(cgroups.base)
    assert f"{cgroups.base}: pid {parent} (" in problem
    assert "pid 0 () and 1 more; run the controller in a cgroup of its own" in problem


def test_processes_are_moved_until_none_is_left(
    cgroups: FakeCgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One may fork while it is moved."""
    answers = [[1, 2], [3], []]
    monkeypatch.setattr(residents, "processes_in", lambda _: answers.pop(0))
    target = cgroups.make("app.service/supervisor")
    move_all(cgroups.base, target)
    assert answers == []
    assert (target / "cgroup.procs").read_text() == "3"
