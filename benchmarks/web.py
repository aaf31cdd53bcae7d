"""Serve one ASGI application by us, uvicorn and gunicorn, and reload it under load.

Each runs two workers of uvicorn. Clients connect for each request, so that a request
that a reload refuses, resets or cuts off is one that failed; then with connections that
are kept, for the rate.
"""

from __future__ import annotations

import contextlib
import os
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
from benchmarks.frame import Frame
from benchmarks.serving import LIMIT, command, environment
from benchmarks.web_app import BODY

_CLIENTS: Final = 8
_SECONDS: Final = 4.0
"""How long requests per second are counted."""
_RELOADS: Final = 5
_BETWEEN: Final = 3.0
"""Time that a reload gets [s]."""
_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
_LATE: Final = 10.0
"""A request without an answer for so long has failed [s]."""

Words: TypeAlias = Callable[[Path, int], Sequence[str]]


def _ours(_: Path, port: int) -> Sequence[str]:
    return command("serve", str(Path(__file__).with_name("web_service.py")))


def _uvicorn(venv: Path, port: int) -> Sequence[str]:
    options = ["--workers", "2", "--port", str(port), "--log-level", "critical"]
    return [str(venv / "bin" / "uvicorn"), *options, "benchmarks.web_app:app"]


def _gunicorn(venv: Path, port: int) -> Sequence[str]:
    options = ["-w", "2", "-b", f"127.0.0.1:{port}", "--log-level", "critical"]
    options += ["-k", "uvicorn_worker.UvicornWorker"]
    return [str(venv / "bin" / "gunicorn"), *options, "benchmarks.web_app:app"]


@frozen
class WebServer:
    """One way to serve the application."""

    name: str
    words: Words
    variable: str = ""
    """Variable that names its environment; empty: the current one."""


SERVERS: Final = (
    WebServer("trio_supervisor", _ours),
    WebServer("uvicorn --workers", _uvicorn),
    WebServer("gunicorn, uvicorn-worker", _gunicorn, "BENCHMARKS_GUNICORN"),
)


async def run(frame: Frame) -> None:
    """Measure requests per second, and what reloads cost."""
    seconds = 0.2 if frame.options.is_quick else _SECONDS
    reloads = 1 if frame.options.is_quick else _RELOADS
    for server in SERVERS:
        venv = os.environ.get(server.variable, "") if server.variable else sys.prefix
        if not venv:
            why = f"{server.variable} names no environment (nox -s benchmarks sets it)"
            frame.skip(server.name, why)
            continue
        async with _open(server, Path(venv)) as running:
            rates = [await running.rate(seconds) for _ in range(3)]
            frame.add(
                f"{server.name}: requests",
                {f"{server.name}: requests": tuple(rates)},
                unit="1/s",
            )
            found = await running.reload(reloads)
            for name, value, unit in (
                ("failed requests", float(found.failed), ""),
                ("longest time without an answer", found.gap, "ms"),
            ):
                title = f"{server.name}: {name}, {reloads} reloads"
                note = f"of {found.answered + found.failed} requests"
                frame.add(title, {title: (value,)}, unit=unit, note=note)


@define
class _Load:
    """What clients saw."""

    answered: int = 0
    failed: int = 0
    gap: float = 0.0
    """Longest time without an answer [ms]."""
    _last: float = field(factory=now)

    def answer(self) -> None:
        self.answered += 1
        moment = now()
        self.gap, self._last = max(self.gap, moment - self._last), moment


@define(eq=False)
class _Served:
    """A server that runs."""

    _process: trio.Process
    _port: int

    async def rate(self, seconds: float) -> float:
        """Return the requests per second over connections that are kept."""
        load = _Load()
        with trio.move_on_after(seconds):
            await self._load(load, is_kept=True)
        return load.answered / seconds

    async def reload(self, times: int) -> _Load:
        """Send SIGHUP that often under load; return what the clients saw."""
        load = _Load()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._load, load, False)
            for _ in range(times):
                await trio.sleep(_BETWEEN)
                self._process.send_signal(signal.SIGHUP)
            await trio.sleep(_BETWEEN)
            nursery.cancel_scope.cancel()
        return load

    async def wait_serving(self) -> None:
        with trio.fail_after(LIMIT):
            while True:
                with contextlib.suppress(OSError):
                    async with await self._connect():
                        return
                await trio.sleep(0.05)

    async def _connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self._port)

    async def _load(self, load: _Load, is_kept: bool) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(_CLIENTS):
                nursery.start_soon(self._client, load, is_kept)

    async def _client(self, load: _Load, is_kept: bool) -> None:
        while True:
            try:
                with trio.fail_after(_LATE):
                    async with await self._connect() as stream:
                        await _ask(stream, is_kept)
                        load.answer()
                        while is_kept:
                            await _ask(stream, is_kept)
                            load.answer()
            except (OSError, trio.BrokenResourceError, trio.TooSlowError):
                load.failed += 1
                await trio.sleep(0.01)


async def _ask(stream: trio.SocketStream, is_kept: bool) -> None:
    """Send a request, and read the answer to its end.

    Raises:
        OSError: the answer is not complete.
    """
    await stream.send_all(_REQUEST % (b"" if is_kept else b"Connection: close\r\n"))
    answer = b""
    while not answer.endswith(BODY):
        if not (data := await stream.receive_some()):
            raise ConnectionResetError
        answer += data


@asynccontextmanager
async def _open(server: WebServer, venv: Path) -> AsyncIterator[_Served]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        process = await trio.lowlevel.open_process(
            list(server.words(venv, port)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(BENCHMARKS_PORT=str(port)),
            cwd=directory,
        )
        running = _Served(process, port)
        try:
            await running.wait_serving()
            yield running
        finally:
            with trio.CancelScope(shield=True), contextlib.suppress(OSError):
                if process.returncode is None:
                    process.terminate()
                await process.wait()
