"""Test that a generation keeps its code if its fork server dies or files change."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.kits.serving import Serving, is_alive, open_serving, wait_gone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs a fork server")

SERVICE = """
import trio
from trio_supervisor import Application, Monitor, Service
import helper

open("tmp/imports", "a").write("x")

class Own(Monitor):
    async def run_once(self):
        pass

async def web(worker):
    await worker.status(helper.VERSION)
    await worker.ready()
    await trio.sleep_forever()

application = Application(
    [Service("web", web, count=2, intensity=2)], monitors=[Own()], intensity=2
)
"""
HELPER = "VERSION = 'one'\n"


def servers(serving: Serving) -> list[int]:
    """Return fork server and standby: children that lead a group, by their titles."""
    found = []
    for pid in serving.process_ids():
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
            parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        is_child = int(parent[1]) == serving.process.pid
        if b"fork server" in title and is_child and os.getpgid(pid) == pid:
            found.append(pid)
    return sorted(found)


def wait_servers(serving: Serving) -> tuple[int, int]:
    """Wait for a fork server and its standby: both start soon after a worker."""
    serving.until(lambda: len(servers(serving)) == 2, "a twin")
    server, twin = servers(serving)
    return server, twin


def kill(*process_ids: int) -> None:
    for process_id in process_ids:
        os.kill(process_id, signal.SIGKILL)
    wait_gone(process_ids)


def crash(serving: Serving, name: str) -> int:
    """Kill the worker *name*; return its process."""
    process_id = serving.pids()[name]
    kill(process_id)
    return process_id


def wait_again(serving: Serving, name: str, before: int, version: str) -> None:
    """Wait until *name* is ready in another process, and runs the given code."""

    def is_back() -> bool:
        workers = serving.call("workers")["workers"]
        (worker,) = [w for w in workers if w["name"] == name]
        is_other = worker["process_id"] not in (None, before)
        is_ready = is_other and worker["state"] == "ready" and worker["status"] != ""
        assert not is_ready or worker["status"] == version
        return bool(is_ready)

    serving.until(is_back, f"{name} with version {version}")


CHANGES = {
    "half written": "def (",
    "removed": None,
    "another version": SERVICE.replace("helper.VERSION", "'two'"),
}


@pytest.mark.parametrize("source", CHANGES.values(), ids=CHANGES)
def test_killed_fork_server_standby_takes_over_with_same_code(
    source: str | None,
) -> None:
    """Nothing is imported again although the file has changed; a new standby starts."""
    with open_serving(SERVICE, files={"helper.py": HELPER}) as serving:
        server, twin = wait_servers(serving)
        if source is None:
            (serving.directory / "service.py").unlink()
        else:
            serving.edit(source)
        serving.put("helper.py", "VERSION = 'two'\n")
        for victim in (server, twin):
            kill(victim)
            wait_servers(serving)
            wait_again(serving, "web.0", crash(serving, "web.0"), "one")
        since = serving.mark()
        kill(serving.call("status")["supervisor"]["process_id"])
        serving.wait_event(since=since, event="supervisor_connected")
        status = json.loads(serving.cli("status", "--json").stdout)
        assert status["monitors"] == {"own": {}}
        assert (serving.directory / "tmp" / "imports").read_text() == "x"


def test_killed_standby_is_replaced() -> None:
    with open_serving(SERVICE, files={"helper.py": HELPER}) as serving:
        server, twin = wait_servers(serving)
        kill(twin)
        assert wait_servers(serving)[0] == server


def test_lost_code_keeps_workers_and_delays_starts() -> None:
    """The status says why; restoring the file heals it; a reload runs the new code."""
    with open_serving(SERVICE, files={"helper.py": HELPER}) as serving:
        before = serving.pids()
        serving.put("helper.py", "VERSION = (\n")
        kill(*wait_servers(serving))
        serving.until(
            lambda: "helper.py has changed since" in serving.text, "the reason"
        )
        refused = serving.cli("restart", "web.1")
        assert refused.returncode == 1
        assert "web.1 keeps running: helper.py has changed" in refused.stderr
        crashed = crash(serving, "web.0")
        serving.wait_events(3, event="not_started", name="web.0")
        status = serving.cli("status").stdout
        assert "backoff" in status
        assert "helper.py has changed since this generation was imported" in status
        kill(serving.call("status")["supervisor"]["process_id"])
        serving.until(
            lambda: "monitors are off until a reload" in serving.text, "a word"
        )
        serving.until(lambda: serving.cli("ping").returncode == 0, "a supervisor")
        assert is_alive(before["web.1"])
        serving.put("helper.py", HELPER)
        wait_again(serving, "web.0", crashed, "one")
        serving.put("helper.py", "VERSION = 'two'\n")
        assert serving.cli("reload").returncode == 0
        workers = serving.call("workers")["workers"]
        assert {worker["status"] for worker in workers} == {"two"}
        assert {worker["generation"] for worker in workers} == {2}


def test_exec_worker_with_newer_code_logs_it() -> None:
    source = SERVICE.replace("count=2", 'start_method="exec"')
    with open_serving(source, files={"helper.py": HELPER}) as serving:
        serving.put("helper.py", "VERSION = 'two'\n")
        wait_again(serving, "web.0", crash(serving, "web.0"), "two")
        assert "helper.py has changed since this generation" in serving.text
        assert "this worker runs the new code" in serving.text


def test_other_environment_forks_same_code() -> None:
    """Its separate fork server starts late, after the files have changed."""
    source = SERVICE.replace("count=2", 'count=0, environment={"OTHER": "1"}').replace(
        "[Service", '[Service("first", web), Service'
    )
    with open_serving(source, files={"helper.py": HELPER}) as serving:
        serving.put("helper.py", "VERSION = 'two'\n")
        assert serving.cli("scale", "web=1", "--timeout", "3").returncode != 0
        serving.wait_event(event="not_started", name="web.0")
        assert "helper.py has changed since this generation" in serving.text
        assert is_alive(serving.pids()["first.0"])
