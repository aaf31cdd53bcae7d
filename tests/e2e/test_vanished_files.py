"""Files of ours that somebody removes while we run, as tmpreaper does."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

from tests.e2e.serving import Serving, open_serving

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
"""More than the health checks' timeout [s]."""


def statuses(serving: Serving) -> dict[str, str]:
    workers = serving.call("workers")["workers"]
    return {worker["name"]: worker["status"] for worker in workers}


def wait_beats(serving: Serving, count: int) -> None:
    """Wait until each of those that count beats has come so much further."""

    def beats() -> dict[str, int]:
        told = statuses(serving)
        return {n: int(s[5:]) for n, s in told.items() if s.startswith("beat ")}

    before = beats()
    assert {"web.0", "web.1", "exec.0", "talks.0"} <= set(before)

    def is_further() -> bool:
        return all(beats()[name] >= beat + count for name, beat in before.items())

    serving.until(is_further, "further beats")


def test_an_emptied_tmpdir_changes_nothing() -> None:
    """All go on, are heard, and are restarted as before."""
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


def test_a_flood_drowns_nobody_else() -> None:
    with open_serving(SERVICE.replace("FLOOD", FLOOD)) as serving:
        pids = serving.pids()
        wait_beats(serving, int(LONG / 0.2))
        assert serving.pids() == pids
