"""Test that processes run with the scheduling priority of their service."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.serving import (
    COMMAND,
    Serving,
    environment_of_children,
    open_serving,
    short_directory,
)

SERVICE = """
import trio
from trio_supervisor import Application, Command, Service

async def work(worker):
    await trio.to_thread.run_sync(lambda: None)  # one more thread
    await worker.ready()
    await trio.sleep_forever()

application = Application([
    Service("forked", work, nice=5),
    Service("executed", work, start_method="exec", nice=6),
    Service("plain", work),
    # The shell starts its child at once: it has to inherit the priority.
    Command("command", ["sh", "-c", "sleep 1000 & wait"], nice=7),
])
"""
UNPRIVILEGED = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice"]
needs_setpriv = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None,
    reason="root needs setpriv(1) to give up CAP_SYS_NICE",
)
prefix = UNPRIVILEGED if os.geteuid() == 0 else ()


def _has_capability() -> bool:
    """Return whether CAP_SYS_NICE, number 23, is effective; capabilities(7)."""
    if not os.path.exists("/proc/self/status"):
        return False
    lines = Path("/proc/self/status").read_text().splitlines()
    [mask] = [line.split()[1] for line in lines if line.startswith("CapEff:")]
    return bool(int(mask, 16) & 1 << 23)


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(SERVICE, prefix=prefix) as found:
        yield found


def priorities(process_id: int) -> set[int]:
    """Return the priority of each thread of a process."""
    tasks = [int(path.name) for path in Path(f"/proc/{process_id}/task").iterdir()]
    return {os.getpriority(os.PRIO_PROCESS, task) for task in tasks}


def _group_of(process_id: int) -> int | None:
    try:
        return os.getpgid(process_id)
    except ProcessLookupError:  # a process of another test has exited
        return None


def group_priorities(group: int) -> list[int]:
    """Return the priorities of the processes in a process group."""
    members = [
        int(name)
        for name in filter(str.isdigit, os.listdir("/proc"))
        if _group_of(int(name)) == group
    ]
    return [os.getpriority(os.PRIO_PROCESS, member) for member in members]


@pytest.mark.parametrize(("name", "nice"), [("forked.0", 5), ("executed.0", 6)])
def test_worker_has_the_priority_of_its_service_in_every_thread(
    serving: Serving, name: str, nice: int
) -> None:
    assert priorities(serving.pids()[name]) == {nice}


def test_command_and_its_children_have_the_priority(serving: Serving) -> None:
    assert group_priorities(serving.pids()["command.0"]) == [7, 7]


def test_priority_of_other_processes_is_unchanged(serving: Serving) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert priorities(serving.pids()["plain.0"]) == {ours}
    others = [serving.process.pid, *_descendants(serving)]
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in others} == {ours}


def _descendants(serving: Serving) -> list[int]:
    """Return the controller's children that are no workers: supervisor, guardian …"""
    path = Path(f"/proc/{serving.process.pid}/task/{serving.process.pid}/children")
    children = {int(word) for word in path.read_text().split()}
    return sorted(children - set(serving.pids().values()))


def test_replacement_has_the_priority_as_well(serving: Serving) -> None:
    before = serving.pids()["forked.0"]
    assert serving.cli("restart", "forked").returncode == 0
    after = serving.pids()["forked.0"]
    assert after != before
    assert priorities(after) == {5}


def test_reload_replaces_workers_whose_priority_changes() -> None:
    with open_serving(SERVICE, prefix=prefix) as serving:
        before = serving.pids()
        source = serving.directory / "service.py"
        source.write_text(SERVICE.replace("nice=5", "nice=9"))
        reload = serving.cli("reload", "--changed-only")
        assert reload.returncode == 0, reload.stderr
        after = serving.pids()
        assert priorities(after["forked.0"]) == {9}
        assert after["command.0"] == before["command.0"]


@needs_setpriv
def test_priority_without_permission_is_reported_before_the_start() -> None:
    with short_directory() as directory:
        (directory / "service.py").write_text(SERVICE.replace("nice=7", "nice=-5"))
        result = subprocess.run(
            [*prefix, *COMMAND, "serve", "service.py"],
            cwd=directory,
            env=environment_of_children(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert result.returncode == 10
    assert result.stderr.splitlines() == [
        f"trio-supervisor: services[3].nice: command: -5 is below the controller's "
        f"{ours}, which needs CAP_SYS_NICE, or RLIMIT_NICE of at least 25"
    ]


@needs_setpriv
def test_reload_to_a_priority_without_permission_changes_nothing() -> None:
    with open_serving(SERVICE, prefix=prefix) as serving:
        before = serving.pids()
        source = serving.directory / "service.py"
        source.write_text(SERVICE.replace("nice=5", "nice=-5"))
        reload = serving.cli("reload")
        assert reload.returncode != 0
        assert "services[0].nice: forked: -5 is below" in reload.stderr
        assert serving.pids() == before


@pytest.mark.skipif(not _has_capability(), reason="needs CAP_SYS_NICE")
def test_priority_with_permission_may_be_below_the_controllers() -> None:
    text = SERVICE.replace("nice=5", "nice=-5").replace("nice=7", "nice=-7")
    with open_serving(text) as serving:
        pids = serving.pids()
        assert priorities(pids["forked.0"]) == {-5}
        assert group_priorities(pids["command.0"]) == [-7, -7]
