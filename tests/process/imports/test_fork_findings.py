"""Resources of an import that are not safe to fork are reported, and no others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.kits.serving import environment_of_children, short_directory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

_PROGRAM = """
import asyncio, json, logging.handlers, multiprocessing, os, select, socket, sqlite3
import subprocess, sys, threading, time
{left}
from attrs import asdict
from trio_supervisor.process.imports.fork_findings import find
print(json.dumps(asdict(find({{0, 1, 2}}, {{"telemetry"}}))))
sys.stdout.flush()
from trio_supervisor.process.kernel import child_pids
for pid in child_pids():
    os.kill(pid, 9)
os._exit(0)
"""

_LISTENING = "s = socket.create_server(('127.0.0.1', 0))"
_CONNECTED = f"{_LISTENING}; c = socket.create_connection(s.getsockname())"


def find_after(left: str) -> dict[str, Any]:
    with short_directory() as directory:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM.format(left=left)],
            cwd=directory,
            env=environment_of_children(),
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("left", "parts"),
    [
        pytest.param(
            "threading.Thread(target=time.sleep, args=(60,), name='poller',"
            " daemon=True).start()",
            ["the thread 'poller'"],
            id="thread",
        ),
        pytest.param(
            "from concurrent.futures import ThreadPoolExecutor as T\n"
            "t = T(1, 'pool'); t.submit(int)",
            ["the thread 'pool_0'"],
            id="thread pool",
        ),
        pytest.param(
            "p = multiprocessing.get_context('fork').Process(target=time.sleep,"
            " args=(60,), name='helper', daemon=True); p.start()",
            ["the process 'helper' (pid "],
            id="child of multiprocessing",
        ),
        pytest.param(
            "p = subprocess.Popen(['sleep', '5'])",
            ["the process 'sleep 5' (pid "],
            id="subprocess",
        ),
        pytest.param(_CONNECTED, ["a connection to 127.0.0.1 port "], id="connection"),
        pytest.param(
            "pair = socket.socketpair()",
            ["a connection to the other end of a socket pair (2 times)"],
            id="socket pair",
        ),
        pytest.param(
            "loop = asyncio.new_event_loop()",
            ["an epoll descriptor (event loop)"],
            id="event loop",
        ),
        pytest.param(
            "import ctypes; i = ctypes.CDLL(None).inotify_init()",
            ["an inotify descriptor"],
            id="inotify",
        ),
        pytest.param(
            "import ctypes; i = ctypes.CDLL(None).timerfd_create(1, 0)",
            ["a timerfd"],
            id="timerfd",
        ),
        pytest.param(
            "db = sqlite3.connect('data.db'); db.execute('create table t (x)');"
            " db.commit()",
            ["the SQLite database /", "data.db"],
            id="SQLite",
        ),
    ],
)
def test_find_reports_unsafe_resources(left: str, parts: list[str]) -> None:
    found = find_after(left)
    assert all(part in ", ".join(found["unsafe"]) for part in parts), found
    assert found["harmless"] == []


@pytest.mark.parametrize(
    "left",
    [
        pytest.param("", id="nothing"),
        pytest.param(_LISTENING, id="listening socket"),
        pytest.param("s = socket.socket()", id="socket that is not connected"),
        pytest.param(
            "s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('127.0.0.1', 9))",
            id="datagrams, as to syslog or statsd",
        ),
        pytest.param("f = open('x.log', 'a'); f.write('x')", id="log file"),
        pytest.param("f = open(os.devnull)", id="/dev/null"),
        pytest.param("p = os.pipe()", id="pipe"),
        pytest.param(
            "t = threading.Thread(target=int); t.start(); t.join()",
            id="thread that has ended",
        ),
        pytest.param(
            "p = subprocess.Popen(['true']);"
            " os.waitid(os.P_PID, p.pid, os.WEXITED | os.WNOWAIT)",
            id="process that has ended",
        ),
        pytest.param("db = sqlite3.connect(':memory:')", id="database in memory"),
        pytest.param(
            "from multiprocessing import shared_memory as s\n"
            "m = s.SharedMemory(create=True, size=10); m.unlink()",
            id="shared memory and its tracker",
        ),
    ],
)
def test_find_ignores_resources_that_can_be_shared(left: str) -> None:
    assert find_after(left) == {"unsafe": [], "harmless": []}


def test_find_reports_openblas_threads_as_harmless() -> None:
    pytest.importorskip("numpy")
    found = find_after("import numpy")
    assert found["unsafe"] == []
    if len(os.sched_getaffinity(0)) > 1:
        assert re.match(r"\d+ OpenBLAS threads?", found["harmless"][0])


def test_find_reports_restarted_thread_as_harmless() -> None:
    left = """
import types
module = types.ModuleType("telemetry")
exec("import time\\ndef export(): time.sleep(60)", vars(module))
threading.Thread(target=module.export, name="exporter", daemon=True).start()
"""
    found = find_after(left)
    assert found["unsafe"] == []
    assert found["harmless"] == [
        "the thread 'exporter' of telemetry (restarted in each worker)"
    ]
