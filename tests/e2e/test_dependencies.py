"""Test the order of starts and stops by dependencies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.serving import Serving, open_serving, run_cli, short_directory

CHAIN = """
import os
import trio
from trio_supervisor import Application, Command, Service, SyncWorker, Worker

async def gated(worker: Worker) -> None:
    while not os.path.exists("tmp/" + worker.service):
        await trio.sleep(0.01)
    await worker.ready()
    await worker.stopping.wait()

def migrate(worker: SyncWorker) -> None:
    while not os.path.exists("tmp/migrate"):
        worker.stopping.wait(0.01)
    if not os.path.exists("tmp/tried"):
        open("tmp/tried", "w").close()
        raise SystemExit(3)

async def work(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()

# Declared the wrong way round: what counts is who needs whom.
application = Application([
    Service("web", work, count=2, depends_on={"migrate": "exited_ok", "db": "ready"}),
    Command("log", ["sleep", "1000"], depends_on={"db": "started"}),
    Service("alone", work),
    Service("migrate", migrate, backend="sync", restart="on-failure",
            depends_on={"db": "ready"}),
    Service("db", gated),
])
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(CHAIN, is_ready=False) as serving:
        serving.wait_event(event="supervisor_connected")
        yield serving


def go(serving: Serving, name: str) -> int:
    since = serving.mark()
    (serving.directory / "tmp" / name).touch()
    return since


def order(serving: Serving, since: int, kind: str) -> list[str]:
    return [event["name"] for event in serving.select(since, event=kind)]


def test_start_waits_for_each_condition(serving: Serving) -> None:
    """The conditions are started, ready and exited_ok; status shows those not met."""
    serving.wait_event(event="ready", name="alone.0")
    serving.wait_event(event="ready", name="log.0")
    waits = serving.wait_worker("web.0", state="waiting")
    assert waits["waiting_for"] == "migrate to exit with success, db to be ready"
    assert waits["process_id"] is None
    serving.wait_worker("migrate.0", state="waiting", waiting_for="db to be ready")
    shown = serving.cli("status").stdout
    assert "(waiting for migrate to exit with success, db to be ready)" in shown
    assert serving.cli("probe", "startup").returncode == 1

    go(serving, "db")
    serving.wait_event(event="started", name="migrate.0")
    assert serving.wait_worker("web.1", waiting_for="migrate to exit with success")
    assert not serving.select(event="started", name="web.0")

    go(serving, "migrate")
    serving.wait_event(event="all_ready")

    exits = serving.wait_events(2, event="exited", name="migrate.0")
    assert [exited["returncode"] for exited in exits] == [3, 0]
    started = order(serving, 0, "started")
    assert started.index("db.0") < started.index("log.0")
    assert started.index("db.0") < started.index("migrate.0") < started.index("web.0")
    web = serving.wait_event(event="started", name="web.0")
    assert web["at"] >= exits[1]["at"]
    assert serving.wait_worker("migrate.0", state="stopped")["last_exit"] == (
        "exit code 0"
    )
    assert serving.cli("probe", "startup").returncode == 0
    assert serving.cli("probe", "readiness").returncode == 0


def test_status_shows_dependencies(serving: Serving) -> None:
    found = json.loads(serving.cli("workers", "--json").stdout)

    needs = {worker["name"]: worker["needs"] for worker in found}
    assert needs["web.0"] == ["migrate (exited_ok)", "db (ready)"]
    assert needs["alone.0"] == []


def test_stop_stops_dependents_first(serving: Serving) -> None:
    """`start` of the last dependent starts its dependencies, but no finished job."""
    since = serving.mark()

    stopped = serving.cli("stop", "db")

    assert stopped.returncode == 0
    lines = stopped.stdout.splitlines()
    assert lines[0] == "db stopped"
    others = lines[1].partition(": ")[2].split(", ")
    assert sorted(others) == ["log.0", "web.0", "web.1"]
    exits = order(serving, since, "exited")
    assert exits[-1] == "db.0"
    assert set(exits[:-1]) == {"web.0", "web.1", "log.0"}
    asked = order(serving, since, "stopping")
    assert asked.index("db.0") == 3
    db = serving.wait_event(since=since, event="stopping", name="db.0")
    last = [e for e in serving.select(since, event="exited") if e["name"] != "db.0"]
    assert db["at"] >= max(event["at"] for event in last)

    since = serving.mark()
    assert serving.cli("start", "web").returncode == 0

    started = order(serving, since, "started")
    assert started[0] == "db.0"
    assert {*started[1:]} == {"web.0", "web.1"}
    assert serving.worker("alone.0")["restarts"] == 0
    assert serving.cli("start", "log").returncode == 0


def test_crash_does_not_restart_dependents(serving: Serving) -> None:
    """Only a group restarts them together."""
    before = serving.pids("web")
    since = serving.mark()

    serving.kill("db.0")

    serving.wait_event(since=since, event="ready", name="db.0")
    assert serving.pids("web") == before


def test_shutdown_stops_in_reverse_order(serving: Serving) -> None:
    since = serving.mark()

    assert serving.terminate() == 0

    exits = order(serving, since, "exited")
    assert exits[-1] == "supervisor"
    assert exits.index("web.0") < exits.index("db.0")
    assert exits.index("web.1") < exits.index("db.0")
    assert exits.index("log.0") < exits.index("db.0")


FAILING = """
from trio_supervisor import Application, Service, SyncWorker, Worker

def migrate(worker: SyncWorker) -> None:
    raise SystemExit(4)

async def work(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()

application = Application([
    Service("migrate", migrate, backend="sync", restart="never"),
    Service("web", work, depends_on={"migrate": "exited_ok"}),
    Service("page", work, depends_on={"web": "ready"}),
    Service("other", work),
])
"""


def test_failed_job_keeps_dependents_waiting() -> None:
    """The dependents start once the job has been run again successfully."""
    with open_serving(FAILING, is_ready=False) as serving:
        serving.wait_event(event="ready", name="other.0")
        serving.wait_worker("migrate.0", state="failed", last_exit="exit code 4")
        serving.wait_worker("web.0", waiting_for="migrate to exit with success")
        serving.wait_worker("page.0", waiting_for="web to be ready")
        assert not serving.select(event="started", name="web.0")
        assert serving.cli("probe", "readiness").returncode == 1

        serving.edit(FAILING.replace("raise SystemExit(4)", "return"))
        assert serving.cli("reload").returncode == 0

        serving.wait_worker("page.0", state="ready")
        assert serving.cli("probe", "readiness").returncode == 0
        assert serving.terminate() == 0


@pytest.mark.parametrize(
    ("services", "problem"),
    [
        ('work("a", {"b": "ready"}), work("b", {"a": "started"})', "a -> b -> a"),
        ('work("a", {"a": "ready"})', "a"),
        ('work("a", {"db": "ready"})', "'db'"),
        ('work("a", {"b": "done"}), work("b", {})', "'done'"),
        ('work("a", {"b": "exited_ok"}), work("b", {})', "restart"),
    ],
    ids=["cycle", "itself", "unknown", "no condition", "never ends"],
)
def test_impossible_dependencies_are_rejected_before_start(
    services: str, problem: str
) -> None:
    source = f"""
from trio_supervisor import Application, Command

def work(name, needs):
    return Command(name, ["touch", "started"], depends_on=needs)

application = Application([{services}])
"""
    with short_directory() as directory:
        (directory / "service.py").write_text(source)

        answer = run_cli("serve", "service.py", directory=directory)

        assert answer.returncode == 10
        assert answer.stderr.startswith("trio-supervisor: service.py, line ")
        assert problem in answer.stderr
        assert "depends_on" in answer.stderr
        assert answer.stderr.count("\n") == 1
        assert not Path(directory / "started").exists()
