"""Test which operations a worker may call, with real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kits.serving import Serving, open_serving, run_cli

# Each service writes the results of its attempts beside the socket.
SERVICE = """
import json, os, subprocess, sys
import trio
from trio_supervisor import Application, Command, Service, SyncWorker, open_client

CLI = [sys.executable, "-m", "trio_supervisor"]
RESTART = [*CLI, "restart", "victim"]
SPLIT = (
    "import os, subprocess, sys, time\\n"
    "parent = os.getpid()\\n"
    "if os.fork(): os._exit(0)\\n"
    "os.setsid()\\n"
    "while os.getppid() == parent: time.sleep(0.01)\\n"
    "done = subprocess.run(sys.argv[2:], capture_output=True, text=True)\\n"
    "open(sys.argv[1] + '.new', 'w').write(repr(done))\\n"
    "os.rename(sys.argv[1] + '.new', sys.argv[1])\\n"
)

async def ask():
    said = []
    async with open_client(os.environ["TRIO_SUPERVISOR_SOCKET"]) as client:
        for call in (client.ping, client.status, client.reload, client.restart):
            try:
                report = await call()
                rows = getattr(report, "workers", ())
                said.append([row.name for row in rows])
            except Exception as exc:
                said.append(str(exc))
    return said

def write(name, said):
    with open(name + ".new", "w") as file:
        json.dump(said, file)
    os.rename(name + ".new", name)

def weak(worker: SyncWorker) -> None:
    write("api.json", trio.run(ask))
    done = subprocess.run(RESTART, capture_output=True, text=True)
    write("cli.json", [done.returncode, done.stderr])
    clean = {k: v for k, v in os.environ.items() if "CONTROLLER" not in k}
    command = [sys.executable, "-c", SPLIT, "orphan.txt", *RESTART]
    subprocess.run(command, env=clean)
    while not os.path.exists("orphan.txt"):
        worker.stopping.wait(0.01)
    worker.ready()
    worker.stopping.wait()

def strong(worker: SyncWorker) -> None:
    done = subprocess.run([*CLI, "status", "--json"], capture_output=True, text=True)
    write("strong.json", [done.returncode, done.stdout])
    worker.ready()
    worker.stopping.wait()

def victim(worker: SyncWorker) -> None:
    worker.ready()
    worker.stopping.wait()

application = Application(services=[
    Service("victim", victim, backend="sync"),
    Service("weak", weak, backend="sync", depends_on={"victim": "ready"}),
    Service("strong", strong, backend="sync", may=("status",),
            depends_on={"victim": "ready"}),
    Command("tool", ["/bin/sh", "-c", '"$@"; exec sleep 1000', "sh",
                     *CLI, "stop", "victim"],
            depends_on={"victim": "ready"}),
])
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """Serve all services, until they have made all attempts."""
    with open_serving(SERVICE) as serving:
        yield serving


def said(serving: Serving, name: str) -> Any:
    """Return the result of an attempt."""
    return json.loads((serving.directory / name).read_text())


def test_worker_may_call_ping_and_own_status(serving: Serving) -> None:
    """With the client's API a ping is answered, and status shows its own row."""
    ping, status, reload, restart = said(serving, "api.json")

    assert ping == []
    assert status == ["weak.0"]
    assert "weak.0 may not call 'reload'" in reload
    assert 'needs may=("restart",)' in restart


def test_program_started_by_worker_is_worker(serving: Serving) -> None:
    code, error = said(serving, "cli.json")

    assert code == 1
    assert "weak.0 may not call 'restart'" in error


def test_daemon_without_marker_is_worker(serving: Serving) -> None:
    """It has left the group and the session, and its parent has exited."""
    assert "is for operators" in (serving.directory / "orphan.txt").read_text()


def test_worker_may_call_declared_operations(serving: Serving) -> None:
    code, output = said(serving, "strong.json")

    assert code == 0
    names = {row["name"] for row in json.loads(output)["workers"]}
    assert {"victim.0", "weak.0", "strong.0"} <= names


def test_command_is_worker(serving: Serving) -> None:
    denied = serving.wait_event(event="denied", name="tool.0")

    assert (denied["operation"], denied["needed"]) == ("stop", "stop")


def test_denied_calls_are_events_and_change_nothing(serving: Serving) -> None:
    """The second denial of a kind is not reported separately."""
    denied = serving.wait_event(event="denied", name="weak.0", operation="restart")

    assert denied["level"] == "warning"
    assert "call of 'restart' denied" in denied["message"]
    found = serving.wait_events(2, event="denied", name="weak.0", operation="restart")
    assert [event["count"] for event in found] == [1, 2]
    victim = serving.worker("victim.0")
    assert (victim["restarts"], victim["state"]) == (0, "ready")


def test_operator_may_call_everything(serving: Serving) -> None:
    done = run_cli("restart", "victim", directory=serving.directory)

    assert done.returncode == 0, done.stderr
    assert serving.worker("victim.0")["restarts"] == 1
