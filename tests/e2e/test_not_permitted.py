"""Test processes that belong to another user, such as those of sudo(8)."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from collections.abc import Collection
from pathlib import Path

import pytest

from tests.kits.serving import open_serving, wait_gone

SERVICE = """
from trio_supervisor import Application, Command

become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
script = 'trap "exit 3" TERM; "$@" & while :; do wait; done'
application = Application(
    services=[
        Command("leader", [*become, "sleep", "1000"], stop_timeout=0.5),
        Command("child", ["sh", "-c", script, "sh", *become, "sleep", "1000"],
                stop_timeout=0.5),
        Command("plain", ["sleep", "1000"]),
    ],
)
"""
NOBODY = 65534
# Root without the capability to signal every process, like any other user.
UNPRIVILEGED = ["setpriv", "--bounding-set=-kill", "--inh-caps=-kill"]
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="needs root and setpriv(1)",
)


def nobodys(process_ids: Collection[int]) -> list[int]:
    """Return the processes of the other user in the groups *process_ids*."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getpgid(int(name)) not in process_ids:
                continue
            lines = Path(f"/proc/{name}/status").read_text().splitlines()
        except (ProcessLookupError, FileNotFoundError):
            continue
        uids = next(line for line in lines if line.startswith("Uid:")).split()[1:]
        if uids == [str(NOBODY)] * 4:
            found.append(int(name))
    return found


def test_stop_process_of_other_user_is_reported() -> None:
    user = pwd.getpwuid(NOBODY).pw_name
    with open_serving(SERVICE, prefix=UNPRIVILEGED) as serving:
        pids = serving.pids()
        serving.until(lambda: len(nobodys(pids.values())) == 2, "two of them")
        others = nobodys(pids.values())
        try:
            for name in ("leader", "child"):
                [pid] = nobodys([pids[f"{name}.0"]])
                stopped = serving.cli("stop", name)
                problem = f"{name}.0: not permitted to signal pid {pid} (user {user})"
                assert stopped.returncode == 1
                assert problem in stopped.stderr
                event = serving.wait_event(event="not_permitted", name=f"{name}.0")
                assert (
                    f"not permitted to signal pid {pid} (user {user})"
                    in event["problem"]
                )
                assert serving.wait_worker(f"{name}.0", state="failed")

            shutdown = serving.cli("shutdown")

            assert shutdown.returncode == 1
            assert "not permitted to signal pid" in shutdown.stderr
            assert serving.wait_exit() == 1
            assert "not permitted to signal pid" in serving.lines[-1]
            exited = serving.select(event="exited", name="plain.0")
            assert exited[0]["returncode"] == -signal.SIGTERM
        finally:
            for pid in others:
                os.kill(pid, signal.SIGKILL)
            wait_gone(others)


OVERLAPS = SERVICE.replace('"plain", [', '"plain", overlap=True, arguments=[*become, ')


def test_reload_and_scale_report_process_of_other_user() -> None:
    """The new generation takes over, unless the old worker has to stop first."""
    with open_serving(OVERLAPS, prefix=UNPRIVILEGED) as serving:
        others = list(serving.pids().values())
        serving.until(lambda: len(nobodys(others)) == 3, "three of them")
        others = nobodys(others)
        pids = serving.pids()
        try:
            serving.edit(OVERLAPS.replace('"sleep", "1000"])', '"sleep", "1001"])'))
            overlapped = serving.cli("reload")
            others += [serving.pids()["plain.0"]]
            serving.edit(OVERLAPS.replace('"1000"], stop', '"1001"], stop'))
            swapped = serving.cli("reload")
            scaled = serving.cli("scale", "child=0")

            problem = f"plain.0: not permitted to signal pid {pids['plain.0']}"
            assert overlapped.returncode == 1
            assert f"generation 2 took over, but {problem}" in overlapped.stderr
            assert swapped.returncode == 1
            assert "leader.0: not permitted to signal pid" in swapped.stderr
            leader = serving.wait_worker("leader.0", state="stopped")
            assert "not permitted" in leader["last_exit"]
            assert len(nobodys([pids["leader.0"]])) == 1
            assert scaled.returncode == 1
            assert "child.0: not permitted to signal pid" in scaled.stderr
            assert serving.cli("shutdown").returncode == 1
            assert serving.wait_exit() == 1
        finally:
            for pid in others:
                os.kill(pid, signal.SIGKILL)
            wait_gone(others)
