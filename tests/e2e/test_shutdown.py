"""Test shutdowns: in parallel, in order of dependencies, forced, without leftovers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.kits.serving import (
    COMMAND,
    Serving,
    describe,
    environment_of_children,
    open_serving,
    wait_gone,
)

THREE_SERVICES = """
from trio_supervisor import Application, Command, Service, Worker

async def work(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()

application = Application(
    services=[
        Service("first", work, count=2),
        Command("second", ["sleep", "1000"], depends_on={"first": "ready"}),
        Service("third", work, depends_on={"second": "ready"}),
    ],
)
"""

SIX = """
import time
from trio_supervisor import Application, Command, Service, SyncWorker

def slow(worker: SyncWorker) -> None:
    worker.ready()
    worker.stopping.wait()
    time.sleep(2)

shell = ["sh", "-c", "trap 'sleep 2; exit 0' TERM; while :; do sleep 0.05; done"]
application = Application(
    services=[
        *[Service(f"python-{n}", slow, backend="sync") for n in range(3)],
        *[Command(f"shell-{n}", shell) for n in range(3)],
    ],
)
"""

PATIENT = """
from trio_supervisor import Application, Command

deaf = ["sh", "-c", "trap '' TERM; while :; do sleep 1000; done"]
application = Application(services=[Command("deaf", deaf, stop_timeout=5)])
"""

PAST_ITS_TIME = """
from trio_supervisor import Application, Command

deaf = ["sh", "-c", "trap '' TERM; echo deaf >&2; while :; do sleep 1000; done"]
application = Application(
    services=[
        Command("db", deaf, stop_timeout=60),
        Command("web", deaf, stop_timeout=60, depends_on={"db": "ready"}),
        Command("polite", ["sleep", "1000"]),
    ],
    stop_timeout=2,
)
"""

STUBBORN = """
import signal
import subprocess
import time
from trio_supervisor import Application, Command, Service, SyncWorker, Worker
import trio

def deaf(worker: SyncWorker) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker.ready()
    while True:
        time.sleep(1000)

def parent(worker: SyncWorker) -> None:
    ignore = "trap '' TERM; echo ready; while :; do sleep 1000; done"
    child = subprocess.Popen(["sh", "-c", ignore], stdout=subprocess.PIPE)
    child.stdout.readline()
    worker.status(str(child.pid))
    worker.ready()
    worker.stopping.wait()

async def frozen(worker: Worker) -> None:
    await worker.ready()
    await trio.sleep_forever()

application = Application(
    services=[
        Service("deaf", deaf, backend="sync", stop_timeout=0.5),
        Service("parent", parent, backend="sync", stop_timeout=4),
        Service("frozen", frozen, stop_timeout=60),
        Command("usr1", ["sh", "-c", "trap 'exit 5' USR1; sleep 1000 & wait"],
                stop_signal="USR1", stop_timeout=20),
        Service("patient", deaf, backend="sync", stop_timeout=1000),
    ],
)
"""


@pytest.mark.parametrize("way", ["SIGTERM", "SIGINT", "the shutdown verb"])
def test_shutdown_stops_dependents_first_and_leaves_nothing(way: str) -> None:
    with open_serving(THREE_SERVICES) as serving:
        mark = serving.mark()

        if way.startswith("SIG"):
            serving.process.send_signal(signal.Signals[way])
        else:
            assert serving.cli("shutdown").stdout == "everything stopped\n"
            # It has waited for the process and the socket file.
            assert serving.process.poll() is not None
            assert serving.files() == set()

        assert serving.wait_exit() == 0
        assert serving.process_ids() == []
        assert serving.files() == set()
        steps = [
            (event["event"], event["name"])
            for event in serving.select(mark)
            if event["event"] in ("shutting_down", "stopping", "exited", "stopped")
        ]
        assert steps[:5] == [
            ("shutting_down", "controller"),
            ("stopping", "third.0"),
            ("exited", "third.0"),
            ("stopping", "second.0"),
            ("exited", "second.0"),
        ]
        # Workers of one service stop in parallel.
        assert sorted(steps[5:7]) == [("stopping", "first.0"), ("stopping", "first.1")]
        assert sorted(steps[7:9]) == [("exited", "first.0"), ("exited", "first.1")]
        assert steps[9:] == [
            ("stopping", "supervisor"),
            ("exited", "supervisor"),
            ("stopped", "controller"),
        ]
        codes = {e["name"]: e["returncode"] for e in serving.select(event="exited")}
        assert codes == {
            "first.0": 0,
            "first.1": 0,
            "second.0": -signal.SIGTERM,
            "third.0": 0,
            "supervisor": 0,
        }


def open_shutdown(serving: Serving) -> subprocess.Popen[str]:
    """Begin a ``shutdown`` that waits; return when it has begun."""
    verb = subprocess.Popen(
        [*COMMAND, "shutdown"],
        cwd=serving.directory,
        env=environment_of_children(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    serving.wait_event(event="shutting_down")
    return verb


def test_shutdown_without_waiting_returns_when_it_has_begun() -> None:
    with open_serving(PATIENT) as serving:
        assert serving.cli("shutdown", "--no-wait").stdout == "shutting down\n"
        assert serving.process.poll() is None

        # A second one that waits joins the running shutdown.
        late = serving.cli("shutdown", "--timeout", "0.5")
        assert late.returncode == 4
        assert late.stderr == (
            "trio-supervisor: not everything has stopped within 0.5 s (--timeout); the "
            "shutdown continues\n"
        )
        assert serving.process.poll() is None
        assert serving.terminate() == 0


def test_shutdown_keeps_waiting_if_supervisor_is_killed() -> None:
    with open_serving(PATIENT) as serving, open_shutdown(serving) as verb:
        mark = serving.mark()
        serving.kill("supervisor")
        serving.wait_event(since=mark, event="supervisor_connected")
        assert verb.poll() is None

        assert serving.terminate() == 0

        assert verb.communicate(timeout=30) == ("everything stopped\n", "")
        assert verb.returncode == 0


def test_shutdown_fails_if_controller_is_killed() -> None:
    with open_serving(PATIENT) as serving, open_shutdown(serving) as verb:
        serving.process.kill()

        output, problem = verb.communicate(timeout=30)
        assert (output, verb.returncode) == ("", 1)
        assert problem == (
            "trio-supervisor: the controller was killed before everything had stopped; "
            "its guardian stops the remaining processes\n"
        )


def test_shutdown_of_six_slow_services_takes_as_long_as_one() -> None:
    with open_serving(SIX) as serving:
        mark = serving.mark()

        assert serving.terminate() == 0

        began = serving.wait_event(since=mark, event="shutting_down")["at"]
        [over] = serving.select(mark, event="stopped")
        # One after another they would need twelve.
        assert 2 <= over["at"] - began < 9
        asked = [e["at"] for e in serving.select(mark, event="stopping")][:6]
        ended = [e["at"] for e in serving.select(mark, event="exited")]
        assert max(asked) < min(ended)
        assert {e["returncode"] for e in serving.select(mark, event="exited")} == {0}


def test_shutdown_ends_within_application_stop_timeout() -> None:
    """Each service has a minute; the remaining processes are killed in order."""
    with open_serving(PAST_ITS_TIME) as serving:
        warning = serving.wait_line("stopping can take 120 s (web 60 s, then db 60 s)")
        assert "workers still running after 1.8 s will be killed" in warning
        for name in ("db", "web"):
            serving.printed(f"{name}.0", "deaf")
        mark = serving.mark()

        assert serving.terminate() == 0

        [over] = serving.select(mark, event="stopped")
        assert 1.7 < over["seconds"] < 10
        exits = [(e["name"], e["returncode"]) for e in serving.select(event="exited")]
        assert exits[0] == ("polite.0", -signal.SIGTERM)
        assert exits[1:3] == [("web.0", -signal.SIGKILL), ("db.0", -signal.SIGKILL)]
        [event] = serving.select(mark, event="stop_timeout")
        assert sorted(event["left"]) == ["db.0", "web.0"]
        assert serving.process_ids() == []
        assert serving.files() == set()


def test_signal_during_start_stops_everything() -> None:
    with open_serving(THREE_SERVICES, is_ready=False) as serving:
        serving.wait_event(event="started", name="first.0")

        assert serving.terminate() == 0

        assert serving.process_ids() == []
        assert serving.files() == set()


@pytest.fixture(scope="module")
def stubborn() -> Iterator[Serving]:
    """Serve services that ignore the stop signal; each test stops one."""
    with open_serving(STUBBORN) as serving:
        yield serving
        # In case another process runs the test that sends the second signal.
        if serving.process.poll() is None:
            serving.process.send_signal(signal.SIGTERM)
            serving.wait_event(event="shutting_down")


def test_stop_kills_after_stop_timeout(stubborn: Serving) -> None:
    began = time.monotonic()

    stubborn.call("stop", names=["deaf"])

    assert 0.5 <= time.monotonic() - began < 30
    exited = stubborn.wait_event(event="exited", name="deaf.0")
    assert exited["returncode"] == -signal.SIGKILL
    assert exited["is_planned"]
    assert stubborn.worker("deaf.0")["state"] == "stopped"


def test_stop_waits_for_process_group_and_kills_it(stubborn: Serving) -> None:
    """The worker returns immediately; its child ignores the signal."""
    child = int(stubborn.worker("parent.0")["status"])
    began = time.monotonic()

    stubborn.call("stop", names=["parent"])

    assert 4 <= time.monotonic() - began < 30
    assert not os.path.exists(f"/proc/{child}/fd/0")
    assert child not in stubborn.process_ids()
    exited = stubborn.wait_event(event="exited", name="parent.0")
    assert exited["returncode"] == 0


def test_stop_suspended_worker_is_continued_and_exits(stubborn: Serving) -> None:
    process_id = stubborn.worker("frozen.0")["process_id"]
    os.kill(process_id, signal.SIGSTOP)
    began = time.monotonic()

    stubborn.call("stop", names=["frozen.0"])

    assert time.monotonic() - began < 30
    exited = stubborn.wait_event(event="exited", name="frozen.0")
    assert exited["returncode"] == 0


def test_stop_sends_declared_stop_signal(stubborn: Serving) -> None:
    stubborn.call("stop", names=["usr1"])

    exited = stubborn.wait_event(event="exited", name="usr1.0")
    assert exited["returncode"] == 5


def test_second_signal_kills_immediately(stubborn: Serving) -> None:
    """One service has a stop timeout of a quarter of an hour."""
    stubborn.process.send_signal(signal.SIGTERM)
    stubborn.wait_event(event="stopping", name="patient.0")
    assert stubborn.process.poll() is None

    assert stubborn.terminate() == 0

    exited = stubborn.wait_event(event="exited", name="patient.0")
    assert exited["returncode"] == -signal.SIGKILL
    assert stubborn.process_ids() == []
    assert stubborn.files() == set()


DAEMONS = """
import os, signal, subprocess
from trio_supervisor import Application, Service, Worker

async def work(worker: Worker) -> None:
    ignore = "trap '' TERM; echo ready; while :; do sleep 1000; done"
    deaf = subprocess.Popen(["setsid", "sh", "-c", ignore], stdout=subprocess.PIPE)
    deaf.stdout.readline()
    polite = subprocess.Popen(["setsid", "sleep", "1000"])
    await worker.status(f"{deaf.pid} {polite.pid}")
    await worker.ready()
    await worker.stopping.wait()

application = Application(services=[Service("worker", work, stop_timeout=1)])
"""


def test_stop_process_that_left_group_is_stopped() -> None:
    with open_serving(DAEMONS) as serving:
        serving.when_ready()
        pids = list(map(int, serving.worker("worker.0")["status"].split()))
        assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
        assert serving.terminate() == 0
        [event] = serving.select(event="strays")  # all are reported, once
        assert (event["name"], set(event["commands"])) == ("worker.0", {"sh", "sleep"})
        assert set(pids) <= set(event["process_ids"])
        assert "had left behind" not in serving.text
    wait_gone(pids, timeout=0)


LEAVING = """
import atexit
import os

@atexit.register
def leave():
    open(f"left-{os.getpid()}", "w").close()

"""


def test_shutdown_runs_atexit_handlers_of_import() -> None:
    """They run once, in the process that has imported the application."""
    with open_serving(LEAVING + THREE_SERVICES) as serving:
        importers = {
            f"left-{process_id}"
            for process_id in serving.process_ids()
            if "fork server" in describe(process_id)
        }
        assert serving.terminate() == 0

        [left] = serving.files()
        assert left in importers
