"""Test that nothing outlives a killed controller for long."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from tests.kits.serving import (
    PATIENCE,
    find_guardian,
    guardian_of,
    open_serving,
    wait_gone,
)

STOP_TIMEOUT = 4.0
SUPERVISOR_STOP_TIMEOUT = 5.0
LATE = 15.0
"""Extra time for a busy machine [s]."""

FAMILIES = f"""
import json, os, subprocess, sys, time
import trio
from trio_supervisor import Application, Command, Service, SyncWorker, Worker

def record(name: str) -> None:
    with open(f"ended-{{name}}", "w") as file:
        json.dump(time.monotonic(), file)

async def cleans_up(worker: Worker) -> None:
    await worker.ready()
    try:
        await trio.sleep_forever()
    finally:
        record(worker.name)

async def says_goodbye(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()
    record(worker.name)

def sync(worker: SyncWorker) -> None:
    worker.ready()
    worker.stopping.wait()
    record(worker.name)

IGNORES = "trap '' TERM; echo ready; while :; do sleep 1000; done"

def spawn(program: str, **how: bool) -> int:
    child = subprocess.Popen(["sh", "-c", program], stdout=subprocess.PIPE, **how)
    child.stdout.readline()
    return child.pid

def has_family(worker: SyncWorker) -> None:
    family = [
        spawn("echo ready; exec sleep 1000"),
        spawn("echo ready; exec sleep 1000", start_new_session=True),
        spawn(IGNORES),
        spawn(IGNORES, start_new_session=True),
    ]
    worker.status(json.dumps(family))
    worker.ready()
    worker.stopping.wait()

async def deaf(worker: Worker) -> None:
    await worker.ready()
    while True:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

ASKED = '''
import os, signal, socket, sys, time
def end(*_):
    with open("ended-asked.0", "w") as file:
        file.write(repr(time.monotonic()))
    sys.exit()
signal.signal(signal.SIGTERM, end)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", chr(0), 1))
time.sleep(1000)
'''

def settings() -> dict:
    return dict(stop_timeout={STOP_TIMEOUT})

application = Application(
    services=[
        Service("cleans-up", cleans_up, count=2, **settings()),
        Service("says-goodbye", says_goodbye, backend="asyncio", **settings()),
        Service("sync", sync, backend="sync", **settings()),
        Service("family", has_family, backend="sync", **settings()),
        Service("deaf", deaf, **settings()),
        Command("asked", [sys.executable, "-S", "-c", ASKED], notify=True,
                **settings()),
        Command("plain", ["sleep", "1000"], **settings()),
        Command("stubborn", ["sh", "-c", IGNORES], **settings()),
    ],
)
"""
GRACEFUL = ("cleans-up.0", "cleans-up.1", "says-goodbye.0", "sync.0")


def ended_at(directory: Path, name: str) -> float:
    """Return when the worker's code was asked to stop [s, monotonic]."""
    when: float = json.loads((directory / f"ended-{name}").read_text())
    return when


def test_killed_controller_leaves_nothing() -> None:
    """This includes commands, grandchildren in other sessions, and SIGTERM ignored."""
    with open_serving(FAMILIES) as serving:
        family = set(json.loads(serving.worker("family.0")["status"]))
        everything = set(serving.process_ids())
        strays = {pid for pid in everything if os.getpgid(pid) in family}
        assert len(family) == 4
        assert len(strays & family) == 2
        assert family < everything
        guardian = guardian_of(serving)

        began = time.monotonic()
        serving.process.kill()

        # A little more than the stop timeout, for the kernel and this test.
        wait_gone([*everything - strays - {guardian}], STOP_TIMEOUT + LATE)
        # Processes that left their group get the longest timeout, the supervisor's.
        wait_gone([*everything], SUPERVISOR_STOP_TIMEOUT + LATE)
        serving.wait_nothing_left(1)
        for name in (*GRACEFUL, "asked.0"):
            assert ended_at(serving.directory, name) - began < STOP_TIMEOUT
        assert serving.wait_exit() == -signal.SIGKILL
        # The guardian removes the controller's directory; a socket and its lock stay
        # for the next `serve` to replace.
        assert {f for f in serving.files() if not f.startswith("ended-")} == {
            "supervisor.ipc",
            "supervisor.ipc.lock",
        }


def test_killed_guardian_is_replaced_with_all_state() -> None:
    with open_serving(FAMILIES) as serving:
        first = guardian_of(serving)

        os.kill(first, signal.SIGKILL)

        serving.wait_line("guardian was killed")
        wait_gone([first])
        end = time.monotonic() + PATIENCE
        while not (found := find_guardian(serving)):  # it does not report its start
            assert time.monotonic() < end
        assert found != first
        everything = serving.process_ids()
        serving.process.kill()
        wait_gone(everything, SUPERVISOR_STOP_TIMEOUT + LATE)


def test_killed_controller_and_guardian_workers_exit() -> None:
    """Each worker holds a lifeline; programs without one cannot be stopped then."""
    with open_serving(FAMILIES) as serving:
        report = serving.when_ready()
        workers = [
            worker["process_id"] for worker in report["workers"] if worker["connected"]
        ]
        assert len(workers) == 6
        supervisor = report["supervisor"]["process_id"]

        began = time.monotonic()
        os.kill(guardian_of(serving), signal.SIGKILL)
        serving.process.kill()

        wait_gone([*workers, supervisor], STOP_TIMEOUT + LATE)
        for name in GRACEFUL:
            assert ended_at(serving.directory, name) - began < STOP_TIMEOUT
        for process_id in serving.process_ids():
            os.kill(process_id, signal.SIGKILL)
