"""Test that a cgroup takes a process, and that all of its processes are ended."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from tests.kits.cgroups import FakeCgroups, cgroups
from trio_supervisor.process.cgroups.leaf import Leaf
from trio_supervisor.process.cleanup.stopping import StopDeadline, StopPlan
from trio_supervisor.process.groups import IS_LINUX, is_alive
from trio_supervisor.process.spawn.exec import spawn_exec

__all__ = ["cgroups"]
pytestmark = pytest.mark.skipif(not IS_LINUX, reason="Linux only")

EMPTY, POPULATED = "populated 0\n", "populated 1\n"


@pytest.fixture
def leaf(cgroups: FakeCgroups) -> Leaf:
    return Leaf(cgroups.make("app.service/web.0"))


def test_process_is_added_by_number(leaf: Leaf) -> None:
    leaf.add(4711)
    assert leaf.processes() == [4711]


def test_removed_cgroup_refuses_a_process(leaf: Leaf) -> None:
    """A missing file elsewhere means that the process has exited: it would run."""
    assert leaf.remove()
    with pytest.raises(OSError, match="its cgroup was removed") as caught:
        leaf.add(4711)
    assert not isinstance(caught.value, FileNotFoundError)
    assert (leaf.processes(), leaf.is_populated, leaf.remove()) == ([], False, True)


def test_cgroup_with_processes_is_not_removed(leaf: Leaf) -> None:
    (leaf.path / "cgroup.events").write_text(POPULATED)
    assert leaf.is_populated
    assert not leaf.remove()


async def test_nothing_is_ended_in_an_empty_cgroup(leaf: Leaf) -> None:
    assert await leaf.end_rest(StopPlan(), StopDeadline()) == {}


@pytest.mark.parametrize("has_kill", [True, False])
async def test_rest_gets_the_stop_signal_then_is_killed(
    leaf: Leaf, has_kill: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await spawn_exec(
        ["sh", "-c", "trap 'echo > got' TERM; echo > ready; while :; do sleep 1; done"],
        environment=os.environ,
        directory=str(leaf.path),
        new_session=True,
    )
    while not (leaf.path / "ready").exists():  # noqa: ASYNC110 (another process)
        await trio.sleep(0.005)
    leaf.add(process.pid)
    (leaf.path / "cgroup.events").write_text(POPULATED)
    kill = Leaf.kill

    def kill_as_the_kernel(self: Leaf) -> None:
        kill(self)
        if has_kill and (leaf.path / "cgroup.kill").read_text() == "1":
            os.killpg(process.pid, signal.SIGKILL)
        (leaf.path / "cgroup.events").write_text(EMPTY)

    if has_kill:
        (leaf.path / "cgroup.kill").write_text("")
    monkeypatch.setattr(Leaf, "kill", kill_as_the_kernel)
    ended = await leaf.end_rest(StopPlan(timeout=0.05), StopDeadline())
    assert ended == {process.pid: "sh"}
    assert await process.wait() == -signal.SIGKILL
    process.signal(signal.SIGKILL)
    await process.wait_gone()
    process.close()


async def test_number_that_is_no_longer_in_the_cgroup_gets_no_signal(
    leaf: Leaf,
) -> None:
    """The process has exited in between, and another one has its number."""
    process = await spawn_exec(["sleep", "60"], environment=os.environ)
    leaf._signal(process.pid, (signal.SIGKILL,))
    assert is_alive(process.pid)
    process.signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    process.close()
