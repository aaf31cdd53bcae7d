"""Test that the fork server works after imports that change its process."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.kits.serving import Serving, open_serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs a fork server")

_SERVICE = """
import os, sys
from trio_supervisor import Application, Service

{does}


def work(worker):
    from pathlib import Path
    here = Path(__file__).parent
    is_forked = "trio_supervisor.process.spawn.fork_server" in sys.orig_argv
    with open(here / "started", "a") as file:
        file.write(f"forked {{is_forked}}\\n")
    worker.ready()
    worker.stopping.wait()


application = Application(services=[Service("worker", work, backend="sync", count=3)])
"""

_CLOSED = """
for descriptor in range(256):
    try:
        os.close(descriptor)
    except OSError:
        pass
os.closerange(0, 65536)
kept = os.open(os.devnull, os.O_RDWR)
for descriptor in range(3, 64):
    if descriptor != kept:
        os.dup2(kept, descriptor)
"""

_SIGNALS = """
import faulthandler, itertools, signal, socket, time

def interrupt(*_):
    os.waitpid(-1, 0)
    raise ZeroDivisionError("of a handler")

signal.signal(signal.SIGCHLD, interrupt)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
left, right = socket.socketpair()
left.setblocking(False)
signal.set_wakeup_fd(left.fileno())
faulthandler.dump_traceback_later(0.4, exit=True)
os.umask(0o777)
os.mkdir("gone")
os.chdir("gone")
os.rmdir("../gone")
"""

_PATCHES = """
import gc, socket, sys

class ProxySocket(socket.socket):
    def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
        if type == socket.SOCK_SEQPACKET:
            raise ValueError("a proxy knows streams only")
        super().__init__(family, type, proto, fileno)

def refuse(*_, **__):
    raise PermissionError("of a patch")

socket.socket = ProxySocket
socket.recv_fds = socket.send_fds = refuse
os.fork = os.waitpid = os.dup2 = os.setpgid = os.fstat = refuse
gc.collect = gc.freeze = gc.disable = lambda *_: 0
for name in [n for n in sys.modules if n.startswith("trio_supervisor.")]:
    del sys.modules[name]
"""

_IGNORED = """
import signal, subprocess
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.stdout = sys.stderr = None
helper = subprocess.Popen(["sleep", "3600"])
"""

_LIMITS = """
import resource
for name in ("NOFILE", "FSIZE", "CORE"):
    limit = getattr(resource, f"RLIMIT_{name}")
    small = 40 if name == "NOFILE" else 10_000 if name == "FSIZE" else 0
    resource.setrlimit(limit, (small, small))
    assert resource.getrlimit(limit) == (small, small)
"""

_STREAMS = """
import threading, warnings
warnings.simplefilter("error")
threading.Thread(target=threading.Event().wait, daemon=True).start()
sys.stdout.close()
"""


@pytest.mark.parametrize(
    "does",
    [
        pytest.param(_LIMITS, id="lowers hard limits"),
        pytest.param(_STREAMS, id="closes sys.stdout, makes errors of warnings"),
        pytest.param(_CLOSED, id="closes and replaces all descriptors"),
        pytest.param(_SIGNALS, id="signals, timers, a directory that is gone"),
        pytest.param(_PATCHES, id="patches os, socket, gc and sys.modules"),
        pytest.param(_IGNORED, id="ignores signals, leaves a process"),
    ],
)
def test_fork_server_works_after_hostile_import(does: str) -> None:
    with open_serving(_SERVICE.format(does=does)) as serving:
        server = fork_servers(serving)
        for _ in range(3):
            mark = serving.mark()
            serving.kill("worker.1")
            serving.wait_event(since=mark, event="ready", name="worker.1")
        started = (serving.directory / "started").read_text().splitlines()
        assert started == ["forked True"] * 6
        assert fork_servers(serving) == server
        assert "fork server exited" not in serving.text
        assert serving.terminate() == 0


def test_fork_server_exit_warns_of_nothing_of_its_own() -> None:
    with open_serving(_SERVICE.format(does=_STREAMS)) as serving:
        assert serving.cli("reload").returncode == 0
        assert serving.terminate() == 0
        assert "ResourceWarning" not in serving.text


def test_killed_fork_server_with_children_is_replaced() -> None:
    """A child of the import holds a copy of the connection to the controller."""
    does = """
import multiprocessing, time
if "trio_supervisor.process.spawn.fork_server" in sys.orig_argv:
    context = multiprocessing.get_context("fork")
    child = context.Process(target=time.sleep, args=(3600,), daemon=True)
    child.start()
"""
    with open_serving(_SERVICE.format(does=does)) as serving:
        (server,) = fork_servers(serving)
        os.kill(server, signal.SIGKILL)
        serving.wait_line("fork server exited")
        mark = serving.mark()
        serving.kill("worker.0")
        serving.wait_event(since=mark, event="ready", name="worker.0")
        assert server not in fork_servers(serving)


def fork_servers(serving: Serving) -> set[int]:
    """Return the running fork servers, without their preforked children."""
    return {
        process_id
        for process_id in serving.process_ids()
        if "trio_supervisor: fork server" in command(process_id)
        and os.getpgid(process_id) == process_id
    }


def command(process_id: int) -> str:
    try:
        return Path(f"/proc/{process_id}/cmdline").read_text()
    except OSError:
        return ""
