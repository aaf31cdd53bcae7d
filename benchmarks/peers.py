"""Time the same worker under supervisord, circus, gunicorn and s6, if installed.

A worker reports readiness by a datagram as soon as its event loop runs; ours is
measured in the same way here. Each peer is searched in the environment (a venv) that a
variable names.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

import trio
from attrs import define, field, frozen

from benchmarks.clock import now
from benchmarks.floors import open_fork_client
from benchmarks.frame import Frame
from benchmarks.serving import LIMIT, command, environment

_COUNT: Final = 4
# supervisord treats a worker that ran for less than a second as one that cannot start.
_SETTLE: Final = 1.2
_FLOOR: Final = "kill noticed + fork to first line"

Write: TypeAlias = Callable[[Path, Path, str], list[str]]
"""Writes a configuration to a directory and returns the command that runs the peer."""
Status: TypeAlias = Callable[[Path, Path], list[str]]
"""Returns the command that shows the state of all workers."""


@frozen
class Peer:
    """One way to run four workers."""

    name: str
    write: Write
    variable: str = ""
    """Variable that names its environment; empty: the current environment."""
    program: str = ""
    """Program of the system that it needs."""
    status: Status | None = None
    """None: it has no such command."""


def _supervisord(venv: Path, directory: Path, worker: str) -> list[str]:
    file = directory / "supervisord.conf"
    file.write_text(
        "[supervisord]\n"
        f"nodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\n"
        f"pidfile={directory}/supervisord.pid\n"
        f"[unix_http_server]\nfile={directory}/control\n"
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = "
        "supervisor.rpcinterface:make_main_rpcinterface\n"
        f"[supervisorctl]\nserverurl=unix://{directory}/control\n"
        f"[program:worker]\ncommand={worker}\nnumprocs={_COUNT}\n"
        "process_name=%(process_num)d\nautorestart=true\n"
        "stdout_logfile=NONE\nstderr_logfile=NONE\n"
    )
    return [str(venv / "bin" / "supervisord"), "-c", str(file)]


def _circus(venv: Path, directory: Path, worker: str) -> list[str]:
    file = directory / "circus.ini"
    file.write_text(
        "[circus]\n"
        f"endpoint=ipc://{directory}/endpoint\n"
        f"pubsub_endpoint=ipc://{directory}/pubsub\n"
        f"[watcher:worker]\ncmd={worker}\nnumprocesses={_COUNT}\ncopy_env=True\n"
    )
    return [str(venv / "bin" / "circusd"), str(file)]


def _gunicorn(venv: Path, directory: Path, worker: str) -> list[str]:
    file = directory / "gunicorn_settings.py"
    file.write_text(
        "import os\n"
        "from benchmarks.peer_worker import announce\n"
        f"bind = 'unix:{directory}/http'\n"
        f"workers = {_COUNT}\npreload_app = True\naccesslog = None\n"
        "def post_worker_init(worker):\n"
        "    announce(os.environ['BENCHMARKS_ANNOUNCE'])\n"
    )
    words = ["-c", str(file), "--log-level", "critical", "benchmarks.peer_app:app"]
    return [str(venv / "bin" / "gunicorn"), *words]


def _s6(_: Path, directory: Path, worker: str) -> list[str]:
    for number in range(_COUNT):
        service = directory / "scan" / f"worker{number}"
        service.mkdir(parents=True)
        (service / "run").write_text(f"#!/bin/sh\nexec {worker}\n")
        (service / "run").chmod(0o755)
    return ["s6-svscan", str(directory / "scan")]


def _s6_status(_: Path, directory: Path) -> list[str]:
    found = [str(directory / "scan" / f"worker{n}") for n in range(_COUNT)]
    return ["sh", "-c", "for each; do s6-svstat $each; done", "sh", *found]


def _supervisord_status(venv: Path, directory: Path) -> list[str]:
    file = str(directory / "supervisord.conf")
    return [str(venv / "bin" / "supervisorctl"), "-c", file, "status"]


def _circus_status(venv: Path, directory: Path) -> list[str]:
    endpoint = f"ipc://{directory}/endpoint"
    return [str(venv / "bin" / "circusctl"), "--endpoint", endpoint, "stats"]


def _our_status(_: Path, directory: Path) -> list[str]:
    return command("status", "--socket", str(directory / "supervisor.ipc"))


def _ours(_: Path, directory: Path, worker: str) -> list[str]:
    return _serve(directory, "application")


def _ours_without_backoff(_: Path, directory: Path, worker: str) -> list[str]:
    return _serve(directory, "without_backoff")


def _serve(directory: Path, name: str) -> list[str]:
    target = f"{Path(__file__).with_name('peer_service.py')}:{name}"
    return command("serve", target, "--socket", str(directory / "supervisor.ipc"))


PEERS: Final = (
    Peer("trio_supervisor", _ours, status=_our_status),
    Peer("trio_supervisor, backoff=None", _ours_without_backoff),
    Peer(
        "supervisord",
        _supervisord,
        "BENCHMARKS_SUPERVISORD",
        status=_supervisord_status,
    ),
    Peer("circus", _circus, "BENCHMARKS_CIRCUS", status=_circus_status),
    Peer("gunicorn --preload", _gunicorn, "BENCHMARKS_GUNICORN"),
    Peer("s6", _s6, program="s6-svscan", status=_s6_status),
)


async def run(frame: Frame) -> None:
    """Measure start, crash, status and stop of four workers under each peer."""
    for peer in PEERS:
        venv = os.environ.get(peer.variable, "") if peer.variable else sys.prefix
        if not venv:
            why = f"{peer.variable} names no environment (nox -s benchmarks sets it)"
            frame.skip(peer.name, why)
            continue
        if peer.program and shutil.which(peer.program) is None:
            frame.skip(peer.name, f"{peer.program} is not on PATH")
            continue
        try:
            await _measure(frame, peer, Path(venv))
        except trio.TooSlowError:
            frame.skip(peer.name, f"a worker was not ready within {LIMIT:g} s")


async def _measure(frame: Frame, peer: Peer, venv: Path) -> None:
    name = f"{peer.name}: crash to ready, {_COUNT} workers"
    started = f"{peer.name}: start of {_COUNT} workers"
    stopped = f"{peer.name}: stop of {_COUNT} workers"
    status = f"{peer.name}: status command"
    stops: list[float] = []
    starts: list[float] = []
    statuses: list[float] = []

    async def start() -> None:
        async with _open(peer, venv) as running:
            starts.append(running.ready - running.began)
            await trio.sleep(_SETTLE)
            if peer.status is not None:
                statuses.append(await running.run(peer.status(venv, running.directory)))
            stops.append(await running.stop())

    with open_fork_client() as forker:
        async with _open(peer, venv) as running:
            taken = await frame.take(
                {_FLOOR: forker.probe("crash"), name: running.crash}
            )
    frame.add(name, taken, floor=_FLOOR)
    for _ in range(max(1, frame.options.repeats // 3)):
        await start()
    frame.add(started, {started: tuple(starts)})
    frame.add(stopped, {stopped: tuple(stops)})
    if statuses:
        frame.add(status, {status: tuple(statuses)})


@define(eq=False)
class _Running:
    """A running peer, observed through the announcements of its workers."""

    _process: trio.Process
    _announced: trio.socket.SocketType
    directory: Path
    began: float
    """When the peer was started [ms]."""
    ready: float = 0.0
    """When all its workers were ready [ms]."""
    _process_ids: list[int] = field(factory=list)
    """Process ids of the workers, the oldest first."""

    async def wait_worker(self) -> float:
        """Return when the next worker reported readiness [ms]."""
        with trio.fail_after(LIMIT):
            data = await self._announced.recv(64)
        moment = now()
        self._process_ids.append(int(data))
        return moment

    async def crash(self) -> float:
        """Kill the oldest worker; return the time until a new one is ready [ms]."""
        await trio.sleep(_SETTLE)
        victim = self._process_ids.pop(0)
        began = now()
        os.kill(victim, signal.SIGKILL)
        return await self.wait_worker() - began

    async def run(self, words: Sequence[str]) -> float:
        """Return how long a command takes [ms].

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        began = now()
        with trio.fail_after(LIMIT):
            await trio.run_process(
                words, capture_stdout=True, env=environment(), cwd=self.directory
            )
        return now() - began

    async def stop(self) -> float:
        """Send SIGTERM; return the time until the peer and its workers exited [ms]."""
        began = now()
        self._process.terminate()
        with trio.fail_after(LIMIT):
            await self._process.wait()
            while any(map(_exists, self._process_ids)):  # noqa: ASYNC110 (no children)
                await trio.sleep(0.001)
        return now() - began


def _exists(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


@asynccontextmanager
async def _open(peer: Peer, venv: Path) -> AsyncIterator[_Running]:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        directory = Path(name)
        path = str(directory / "announce")
        announced = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with announced:
            await announced.bind(path)
            worker = f"{sys.executable} -m benchmarks.peer_worker {path}"
            words: Sequence[str] = peer.write(venv, directory, worker)
            began = now()
            process = await trio.lowlevel.open_process(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment(BENCHMARKS_ANNOUNCE=path),
                cwd=directory,
            )
            running = _Running(process, announced, directory, began)
            try:
                for _ in range(_COUNT):
                    running.ready = await running.wait_worker()
                yield running
            finally:
                with trio.CancelScope(shield=True), contextlib.suppress(OSError):
                    if process.returncode is None:
                        process.terminate()
                    await process.wait()
