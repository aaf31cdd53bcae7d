"""Test limits with a real kernel that has the controllers of cgroup v2."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kits.serving import Serving, open_serving
from trio_supervisor.process.groups import IS_LINUX, is_alive

ROOT = Path("/sys/fs/cgroup")
NEEDED = {"cpu", "memory", "pids"}
MIB = 2**20


def _is_possible() -> bool:
    with suppress(OSError):
        enabled = (ROOT / "cgroup.subtree_control").read_text().split()
        return set(enabled) >= NEEDED and os.access(ROOT, os.W_OK)
    return False


pytestmark = pytest.mark.skipif(
    not IS_LINUX or os.geteuid() != 0 or not _is_possible(),
    reason="needs root, and cpu, memory and pids in cgroup v2",
)

SERVICE = """
import trio
from trio_supervisor import Application, Command, Service

async def work(worker):
    await worker.ready()
    await trio.sleep_forever()

async def eat(worker):
    await worker.ready()
    await trio.sleep(0 if worker.incarnation == 1 else float("inf"))
    b"x" * 300 * 2**20

application = Application([
    Service("forked", work, memory_max="200 MiB", memory_high="150 MiB", pids_max=50),
    Service("executed", work, start_method="exec", cpu_max=0.5),
    Service("hungry", eat, memory_max="100 MiB"),
    Command("escaping", ["sh", "escape.sh"], pids_max=7, stop_timeout=0.5),
    Service("plain", work),
    Command(
        "nobody", ["sleep", "1000"], user="nobody", private_tmp=True, pids_max=30
    ),
])
"""
# The second one ignores SIGTERM.
ESCAPE = """\
setsid env -i /bin/sh -c 'trap "" TERM; while true; do sleep 1000; done' &
exec sleep 1000
"""


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """Make a cgroup as systemd does with Delegate=yes, with one that was left there."""
    directory = ROOT / f"trio_supervisor-test-{uuid.uuid4().hex[:8]}"
    directory.mkdir()
    os.setxattr(directory, "trusted.delegate", b"1")
    (directory / "forked.7").mkdir()
    try:
        yield directory
    finally:
        for path in (*directory.glob("*/"), directory):
            path.rmdir()


@pytest.fixture(scope="module")
def serving(base: Path) -> Iterator[Serving]:
    script = f'echo $$ > {base}/cgroup.procs && exec "$@"'
    prefix, files = ["sh", "-c", script, "sh"], {"escape.sh": ESCAPE}
    with open_serving(SERVICE, prefix=prefix, files=files) as found:
        yield found


def cgroup_of(process_id: int) -> str:
    return Path(f"/proc/{process_id}/cgroup").read_text().strip().removeprefix("0::")


def leaves(base: Path) -> set[str]:
    return {path.name for path in base.glob("*/")}


def test_worker_is_in_a_cgroup_with_its_limits(serving: Serving, base: Path) -> None:
    found = {name: cgroup_of(pid) for name, pid in serving.pids().items()}
    names = (*("forked.0", "executed.0", "escaping.0", "nobody.0"),)
    assert {name: found[name] for name in names} == {
        name: f"/{base.name}/{name}" for name in names
    }
    assert found["plain.0"] == f"/{base.name}/supervisor"
    assert cgroup_of(serving.process.pid) == f"/{base.name}/supervisor"
    files = {
        "forked.0/memory.max": f"{200 * MIB}",
        "forked.0/memory.high": f"{150 * MIB}",
        "forked.0/pids.max": "50",
        "executed.0/cpu.max": "50000 100000",
        "escaping.0/pids.max": "7",
    }
    assert {name: (base / name).read_text().strip() for name in files} == files


def test_memory_limit_explains_the_kill(serving: Serving) -> None:
    exited = serving.wait_event(event="exited", name="hungry.0")
    assert exited["kill_reason"] == "out of memory: cgroup limit 100 MiB"


def test_restart_ends_all_processes_of_the_cgroup(serving: Serving, base: Path) -> None:
    """Even one without the worker's environment, in a session of its own."""
    procs = base / "escaping.0/cgroup.procs"
    serving.until(lambda: len(procs.read_text().split()) == 3, "it has started")
    before = serving.pids("escaping")["escaping.0"]
    escaped = {int(word) for word in procs.read_text().split()} - {before}
    since = serving.mark()
    assert serving.cli("restart", "escaping.0").returncode == 0
    stopped = serving.wait_event(since=since, event="strays", name="escaping.0")
    assert set(stopped["process_ids"]) == escaped
    assert not any(map(is_alive, escaped))
    assert serving.pids("escaping")["escaping.0"] != before


def test_reload_gives_new_limits_to_new_workers(serving: Serving, base: Path) -> None:
    serving.edit(SERVICE.replace("pids_max=50", "pids_max=60"))
    assert serving.cli("reload", "--changed-only").returncode == 0
    where = ROOT / cgroup_of(serving.pids()["forked.0"]).lstrip("/")
    assert (where / "pids.max").read_text() == "60\n"


def test_nothing_is_left_after_the_end(serving: Serving, base: Path) -> None:
    assert "forked.7" not in leaves(base)
    assert serving.terminate() == 0
    assert leaves(base) == set()
    assert (base / "cgroup.subtree_control").read_text().split() == []
