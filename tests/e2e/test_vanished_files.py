"""Test files that are removed while serve runs, as tmpreaper does."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kits.serving import Serving, open_serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets")

SERVICE = """
import os, sys, threading, time
import trio
from trio_supervisor import Application, Command, Service, Worker

async def web(worker: Worker) -> None:
    await worker.ready()
    for beat in range(10**6):
        await worker.status(f"beat {beat}")
        await trio.sleep(0.2)

async def other_user(worker: Worker) -> None:
    async def change() -> None:
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        await worker.status(f"user {os.getuid()}")
    worker.handle("change", change)
    await worker.ready()
    await trio.sleep_forever()

def flood(worker) -> None:
    worker.ready()
    lines = "\\n".join(f"LINE={n}" for n in range(400))
    def shout() -> None:
        while not worker.stopping.is_set():
            if not worker._notifier.send(lines):
                time.sleep(0.001)
    for _ in range(2):
        threading.Thread(target=shout, daemon=True).start()
    worker.stopping.wait()

TALKS = [sys.executable, "-S", "-c", '''
import os, socket, time
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
address = os.environ["NOTIFY_SOCKET"].replace("@", chr(0), 1)
for beat in range(10**6):
    notify.sendto(b"READY=1\\\\nWATCHDOG=1\\\\nSTATUS=beat %d" % beat, address)
    time.sleep(0.2)
''']

application = Application(
    services=[
        Service("web", web, count=2, health_check_timeout=1.5),
        Service("exec", web, start_method="exec", health_check_timeout=1.5),
        Service("other", other_user, health_check_timeout=1.5),
        Command("talks", TALKS, notify=True, health_check_timeout=1.5),
        FLOOD
    ],
)
"""
FLOOD = 'Service("flood", flood, backend="sync", health_check_timeout=None),'
LONG = 2.4
"""Longer than the health check timeout [s]."""


def statuses(serving: Serving) -> dict[str, str]:
    workers = serving.call("workers")["workers"]
    return {worker["name"]: worker["status"] for worker in workers}


def wait_beats(serving: Serving, count: int) -> None:
    """Wait until each worker that counts has counted further."""

    def beats() -> dict[str, int]:
        told = statuses(serving)
        return {n: int(s[5:]) for n, s in told.items() if s.startswith("beat ")}

    before = beats()
    assert {"web.0", "web.1", "exec.0", "talks.0"} <= set(before)

    def is_further() -> bool:
        time.sleep(0.1)  # polling all the time would slow the workers down
        return all(beats()[name] >= beat + count for name, beat in before.items())

    serving.until(is_further, "further beats")


def test_emptied_tmpdir_changes_nothing() -> None:
    """Workers keep running, are heard, and are restarted as before."""
    with open_serving(SERVICE.replace("FLOOD", "")) as serving:
        pids = serving.pids()
        assert serving.cli("call", "other.0", "change").returncode == 0
        serving.until(lambda: statuses(serving)["other.0"], "its status")
        user = 65534 if os.getuid() == 0 else os.getuid()
        assert statuses(serving)["other.0"] == f"user {user}"
        for path in (serving.directory / "tmp").iterdir():
            shutil.rmtree(path)
        wait_beats(serving, int(LONG / 0.2))
        assert serving.pids() == pids
        assert serving.cli("restart", "web.0", "talks").returncode == 0
        assert serving.cli("reload").returncode == 0
        serving.when_ready()
        assert not serving.select(event="stopping", cause="unhealthy")


def test_notification_flood_does_not_affect_others() -> None:
    with open_serving(SERVICE.replace("FLOOD", FLOOD)) as serving:
        pids = serving.pids()
        wait_beats(serving, int(LONG / 0.2))
        assert serving.pids() == pids


FILES = """
import os
import trio
from trio_supervisor import Application, Command, Listen, Service, Worker

async def says(worker: Worker) -> None:
    await worker.ready()
    while True:
        print("word", flush=True)
        await trio.sleep(0.1)

async def serves(worker: Worker) -> None:
    await worker.ready()
    listener = worker.sockets["here"]
    listener.setblocking(False)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    async def answer(stream):
        await stream.send_all(b"%d" % worker.incarnation)
    await trio.serve_listeners(answer, [listener])

async def crashes(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()

application = Application(
    services=[
        Service("says", says, log_file="log/says.txt"),
        Service("serves", serves, sockets={"here": Listen(f"unix://{os.getcwd()}/run/here.sock")}),
        Service("crashes", crashes),
    ],
)
"""


@contextmanager
def open_files() -> Iterator[Serving]:
    with open_serving(
        FILES, files={"log/.keep": "", "run/.keep": ""}, is_ready=True
    ) as serving:
        yield serving


def read_socket(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        return connection.recv(100)


def has_written(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_files() as serving:
        yield serving


def test_removed_control_socket_is_created_again(serving: Serving) -> None:
    """All workers connect again; none is restarted."""
    pids, since = serving.pids(), len(serving.lines)
    serving.socket.unlink()
    serving.wait_line("supervisor.ipc was removed; recreated", since=since)
    serving.when_ready()
    assert stat.S_IMODE(serving.socket.stat().st_mode) == 0o600
    assert serving.pids() == pids
    assert serving.cli("status").returncode == 0


def test_removed_lock_is_created_again(serving: Serving) -> None:
    """Otherwise another controller could take over while this one runs."""
    lock, since = Path(f"{serving.socket}.lock"), len(serving.lines)
    lock.unlink()
    serving.wait_line("supervisor.ipc.lock was removed; recreated", since=since)
    with open(lock) as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("what", ["file", "directory"])
def test_removed_log_file_is_created_again(serving: Serving, what: str) -> None:
    path, since = serving.directory / "log" / "says.txt", len(serving.lines)
    serving.until(lambda: has_written(path), "a line")
    if what == "file":
        path.unlink()
    else:
        shutil.rmtree(path.parent)
    serving.wait_line("says.txt was removed; recreated", since=since)
    serving.until(lambda: has_written(path), "another line")


def test_moved_log_file_is_written_until_sigusr1(serving: Serving) -> None:
    """SIGUSR1 says that the name is free."""
    path, since = serving.directory / "log" / "says.txt", len(serving.lines)
    serving.until(lambda: has_written(path), "a line")
    moved = path.rename(path.with_name("moved.txt"))
    size = moved.stat().st_size
    serving.until(lambda: moved.stat().st_size > size, "another line")
    assert not path.exists()
    serving.process.send_signal(signal.SIGUSR1)
    serving.until(lambda: has_written(path), "a line in the new one")
    assert not [line for line in serving.lines[since:] if "was removed" in line]


def test_start_creates_removed_log_directory_again(serving: Serving) -> None:
    path = serving.directory / "log" / "says.txt"
    assert serving.cli("stop", "says").returncode == 0
    shutil.rmtree(path.parent)
    assert serving.cli("start", "says").returncode == 0
    serving.until(lambda: has_written(path), "a line")


@pytest.mark.parametrize("what", ["file", "directory"])
def test_removed_service_socket_is_created_again(serving: Serving, what: str) -> None:
    """Only its workers are replaced."""
    path = serving.directory / "run" / "here.sock"
    before = int(read_socket(path))
    says, since = serving.pids("says"), len(serving.lines)
    if what == "file":
        path.unlink()
    else:
        shutil.rmtree(path.parent)
    serving.wait_line("here.sock was removed; recreated", since=since)
    serving.wait_worker("serves.0", state="ready", incarnation=before + 1)
    assert int(read_socket(path)) == before + 1
    assert serving.pids("says") == says


def test_removed_state_directory_is_created_again(serving: Serving) -> None:
    state = serving.directory / "supervisor.state"
    for _ in range(2):
        since = serving.mark()
        serving.kill("crashes.0")
        exited = serving.wait_event(since=since, event="exited", name="crashes.0")
        serving.until(lambda: Path(exited["post_mortem"]).exists(), "a post-mortem")  # noqa: B023
        serving.when_ready()
        shutil.rmtree(state)


def test_removed_working_directory_keeps_workers() -> None:
    """Workers can be restarted; the socket and the log keep their places."""
    with open_files() as serving:
        pids = serving.pids("says", "crashes")
        shutil.rmtree(serving.directory)
        serving.wait_line("supervisor.ipc was removed; recreated")
        serving.wait_line("says.txt was removed; recreated")
        serving.when_ready()
        assert serving.pids("says", "crashes") == pids
        serving.kill("crashes.0")
        serving.wait_worker("crashes.0", state="ready", incarnation=2)
        path = serving.directory / "log" / "says.txt"
        serving.until(lambda: has_written(path), "a line")
