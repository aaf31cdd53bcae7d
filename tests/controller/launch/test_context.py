"""Test what a process is given by the context of its launch."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from tests.kits.cgroups import FakeCgroups, cgroups
from trio_supervisor.application import Command
from trio_supervisor.controller.launch.context import LaunchContext
from trio_supervisor.process.cgroups.tree import CgroupTree
from trio_supervisor.process.groups import IS_LINUX

__all__ = ["cgroups"]


@pytest.mark.skipif(not IS_LINUX, reason="Linux only")
def test_cgroup_of_a_failed_start_is_removed(cgroups: FakeCgroups) -> None:
    with socket.socket() as unused:
        context = LaunchContext(
            socket_path="/nowhere",
            listener=unused,
            directory="",
            lifeline=-1,
            marker="",
            log_format="text",
            title="test",
            cgroups=CgroupTree(cgroups.root),
        )
    with ExitStack() as stack:
        plain, limited = Command("a", ["a"]), Command("b", ["b"], pids_max=3)
        assert context.make_leaf(plain, "a.0", stack) is None
        leaf = context.make_leaf(limited, "b.0", stack)
        assert leaf is not None
        assert (leaf.path / "pids.max").read_text() == "3"
    assert not leaf.path.exists()
