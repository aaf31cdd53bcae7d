"""A process is gone only with all its threads, its group and its daemons."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import trio

from trio_supervisor.process.child import ChildProcess
from trio_supervisor.process.cleanup.stopping import StopPlan, stop
from trio_supervisor.process.groups import has_variable, is_alive, read_stat
from trio_supervisor.process.kernel import be_subreaper
from trio_supervisor.process.spawn.exec import spawn_exec
from trio_supervisor.process.spawn.helper import open_helper

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc")

# The first thread ends, and another one goes on.
HEADLESS = """
import ctypes, signal, threading, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
threading.Thread(target=time.sleep, args=(1000,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {HEADLESS!r}])
while open(f"/proc/{{child.pid}}/stat").read().rpartition(")")[2].split()[0] != "Z":
    time.sleep(0.01)
print(child.pid, file=open(sys.argv[1], "w"))
"""


async def until_headless(pid: int) -> None:
    with trio.fail_after(30):
        while (stat := read_stat(pid)) is not None and stat.state != "Z":  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_process_with_exited_main_thread_is_not_gone() -> None:
    environment = {**os.environ, "MARK": "headless"}
    process = await spawn_exec(
        [sys.executable, "-c", HEADLESS], environment=environment
    )
    await until_headless(process.pid)

    with trio.move_on_after(0.1):
        await process.wait()
    assert process.returncode is None
    assert is_alive(process.pid)
    assert has_variable(process.pid, b"MARK=headless")

    with trio.fail_after(30):
        assert await stop(process, StopPlan(timeout=0.1)) == ()
    assert process.returncode == -9
    process.close()


async def test_group_is_not_gone_while_member_thread_runs(
    tmp_path: Path,
) -> None:
    told = tmp_path / "pid"
    process = await spawn_exec(
        [sys.executable, "-c", PARENT, str(told)], environment=os.environ
    )
    with trio.fail_after(30):
        assert await process.wait() == 0
    pid = int(told.read_text())
    assert not process.is_gone

    with trio.fail_after(30):
        await stop(process, StopPlan(timeout=0.1))
    assert process.is_gone
    assert not is_alive(pid)
    process.close()


# Forks for as long as it lives, and so do its children.
BOMB = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
end = time.monotonic() + 60
while time.monotonic() < end:
    if os.fork() == 0 and os.fork():
        os._exit(0)
    time.sleep(0.02)
    os.fork() or os._exit(0)
"""


async def test_stop_kills_processes_that_keep_forking() -> None:
    process = await spawn_exec([sys.executable, "-c", BOMB], environment=os.environ)
    await trio.sleep(0.2)

    with trio.fail_after(30):
        await stop(process, StopPlan(timeout=0.05))
    assert process.is_gone
    process.close()


DAEMON = "setsid sleep 1000 & setsid -f sh -c 'sleep 1000; true'; sleep 1000 & echo"


@pytest.mark.parametrize("ending", ["; exit 0", "; sleep 1000"])
async def test_open_helper_leaves_no_process(ending: str) -> None:
    mark = os.urandom(8).hex()
    variable = f"TEST_MARK={mark}".encode()

    def left() -> list[int]:
        names = filter(str.isdigit, os.listdir("/proc"))
        return [pid for pid in map(int, names) if has_variable(pid, variable)]

    with be_subreaper():
        environment = {**os.environ, "TEST_MARK": mark}
        async with open_helper(
            ["sh", "-c", DAEMON + ending], environment=environment
        ) as process:
            assert isinstance(process, ChildProcess)
            if "exit" in ending:
                assert await process.wait() == 0
            else:
                with trio.fail_after(30):
                    while len(left()) < 5:  # noqa: ASYNC110
                        await trio.sleep(0.01)
        assert left() == []
