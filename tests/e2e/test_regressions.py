"""Test past bugs again, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.kits.serving import (
    environment_of_children,
    is_alive,
    open_serving,
    short_directory,
)

SLOW_TO_STOP = """
import trio
from trio_supervisor import Application, Service, Worker

async def work(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()
    await trio.sleep(1)

application = Application(services=[Service("worker", work)])
"""


def test_sighup_during_shutdown_starts_nothing() -> None:
    """The operator presses Ctrl-C, then closes the terminal."""
    with open_serving(SLOW_TO_STOP) as serving:
        serving.when_ready()
        serving.process.send_signal(signal.SIGTERM)
        serving.wait_event(event="stopping", name="worker.0")
        serving.process.send_signal(signal.SIGHUP)
        assert serving.wait_exit() == 0
        assert len(serving.select(event="started", name="worker.0")) == 1


ENDS_ITS_CHILD = """
import os, signal, time
from trio_supervisor import Application, Service, SyncWorker

def work(worker: SyncWorker) -> None:
    worker.stopping.is_set()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"x")
        time.sleep(1000)
    os.read(read, 1)  # CPython forgets a signal that comes while it forks
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    worker.status(f"its child ended with {os.waitstatus_to_exitcode(status)}")
    worker.ready()
    worker.stopping.wait()

application = Application(services=[Service("worker", work, backend="sync")])
"""


def test_worker_can_terminate_its_forked_child() -> None:
    """The child inherits the worker's signal handlers, which must not act in it."""
    with open_serving(ENDS_ITS_CHILD) as serving:
        serving.when_ready()
        worker = serving.worker("worker.0")
        assert worker["status"] == "its child ended with -15"
        assert worker["incarnation"] == 1


CHANGES_DIRECTORY = """
import os
os.chdir("/")
from trio_supervisor import Application, Service, Worker

async def work(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()

application = Application(services=[Service("worker", work)])
"""


def test_service_file_may_change_directory() -> None:
    with open_serving(CHANGES_DIRECTORY) as serving:
        serving.when_ready()
        assert serving.worker("worker.0")["incarnation"] == 1


SLOW_TO_IMPORT = """
import os, time
with open(os.environ["IMPORTED"], "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(1000)
"""


def test_signal_during_slow_import_leaves_nothing() -> None:
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with short_directory() as directory:
            (directory / "service.py").write_text(SLOW_TO_IMPORT)
            imported = directory / "imported"
            process = subprocess.Popen(
                [sys.executable, "-m", "trio_supervisor", "serve", "service.py"],
                cwd=directory,
                env={**environment_of_children(), "IMPORTED": str(imported)},
                stderr=subprocess.DEVNULL,
            )
            importing = _wait_lines(imported, 1)
            process.send_signal(number)
            assert process.wait(20) == code
            assert [pid for pid in importing if is_alive(pid)] == []


def _wait_lines(path: Path, count: int) -> list[int]:
    """Wait until *count* importing processes have written their pid."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if path.exists() and len(lines := path.read_text().splitlines()) >= count:
            return [int(line) for line in lines]
        time.sleep(0.02)
    raise AssertionError(f"{path} has not got {count} lines")


SHEDS_ORPHANS = """
from trio_supervisor import Application, Command, Service, Worker

async def work(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()

application = Application(
    services=[
        Service("worker", work),
        Command("sheds", ["sh", "-c",
                "for i in 1 2 3 4 5 6 7 8; do (setsid true &); done; sleep 1000"]),
    ],
)
"""


def test_orphans_outside_group_are_reaped() -> None:
    with open_serving(SHEDS_ORPHANS) as serving:
        serving.when_ready()
        controller = serving.process.pid

        end = time.monotonic() + 20
        while zombies := _zombies_of(controller):
            assert time.monotonic() < end, zombies
            time.sleep(0.1)


def _zombies_of(parent: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2]
            except OSError:
                continue
            state, parent_of = stat.split()[:2]
            if state == b"Z" and int(parent_of) == parent:
                found.append(int(name))
    return found


def test_supervisor_socket_is_not_inherited_by_workers() -> None:
    """Workers are forked at the same time as the supervisor."""
    with open_serving(CHANGES_DIRECTORY.replace("work)", "work, count=12)")) as serving:
        report = serving.when_ready()
        inodes = _socket_inodes(report["supervisor"]["process_id"])
        for worker in report["workers"]:
            assert not inodes & _socket_inodes(worker["process_id"]), worker["name"]


def _socket_inodes(process_id: int) -> set[str]:
    directory = f"/proc/{process_id}/fd"
    links = set()
    for name in os.listdir(directory):
        with suppress(FileNotFoundError):  # closed in between
            links.add(os.readlink(f"{directory}/{name}"))
    return {link for link in links if link.startswith("socket:")}


def test_serve_with_closed_standard_stream() -> None:
    with short_directory() as directory:
        (directory / "service.py").write_text(SLOW_TO_STOP)
        command = f"{sys.executable} -m trio_supervisor serve service.py >&- 2>&-"
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            cwd=directory,
            env=environment_of_children(),
        )
        ready = subprocess.run(
            [sys.executable, "-m", "trio_supervisor", "status", "--wait-ready"],
            cwd=directory,
            env=environment_of_children(),
            capture_output=True,
            check=False,
        )
        process.terminate()
        assert (ready.returncode, process.wait(20)) == (0, 0)
