"""Measure the minimum that the machine needs: fork, signal, exec, echo of a line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio
from attrs import define

from benchmarks.clock import now
from benchmarks.echo import LIBRARIES, Decode, Encode
from benchmarks.frame import Probe
from benchmarks.serving import environment


@define(eq=False)
class ForkClient:
    """The process of `benchmarks.forker`; returned by `open_fork_client`."""

    _process: subprocess.Popen[str]

    def probe(self, name: str, *arguments: int) -> Probe:
        """Return a probe for one of its floors [ms]."""

        async def measure() -> float:
            return float(self._ask(name, *arguments))

        return measure

    def sleepers(self, count: int) -> list[int]:
        """Return the ids of *count* new processes that sleep until the end."""
        return list(self._ask("sleepers", count))

    def _ask(self, name: str, *arguments: int) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def open_fork_client() -> Iterator[ForkClient]:
    """Run the process that forks while the block is open."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.forker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    ) as process:
        try:
            yield ForkClient(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def run_process(*words: str) -> Probe:
    """Return a probe that runs a program until it exits [ms]."""

    async def measure() -> float:
        began = now()
        process = await trio.lowlevel.open_process(
            words, stdout=subprocess.DEVNULL, env=environment()
        )
        if await process.wait() != 0:
            raise RuntimeError(f"{words} failed: {process.returncode}")
        return now() - began

    return measure


def run_nothing() -> Probe:
    """Return a probe for ``python -c pass`` [ms]."""
    return run_process(sys.executable, "-c", "pass")


def import_trio() -> Probe:
    """Return a probe for exec and import of trio [ms]."""
    return run_process(sys.executable, "-c", "import trio")


@define(eq=False)
class Echo:
    """A connection to a process that echoes; returned by `open_echo`."""

    process_id: int
    _stream: trio.SocketStream
    _encode: Encode
    _decode: Decode

    async def round_trip(self) -> None:
        """Send a line and wait for the answer."""
        await self._stream.send_all(self._encode({"id": 2, "do": "ping"}) + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            answer += await self._stream.receive_some(65536)
        self._decode(answer)

    async def pipelined(self, count: int, in_flight: int) -> None:
        """Do *count* round trips, *in_flight* at a time, with joined sends."""
        sent = received = 0
        due = min(in_flight, count)
        rest = b""
        while received < count:
            if due:
                numbers = range(sent, sent + due)
                lines = [self._encode({"id": n, "do": "ping"}) for n in numbers]
                await self._stream.send_all(b"\n".join([*lines, b""]))
                sent += due
            data = await self._stream.receive_some(65536)
            *answers, rest = (rest + bytes(data)).split(b"\n")
            for answer in answers:
                self._decode(answer)
            received += len(answers)
            due = min(len(answers), count - sent)


@asynccontextmanager
async def open_echo(library: str = "json") -> AsyncIterator[Echo]:
    """Run a process that echoes while the block is open.

    Args:
        library: One of `LIBRARIES`, for both sides.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        path = os.path.join(directory, "echo")
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "benchmarks.echo", path, library],
            stdout=subprocess.PIPE,
            env=environment(),
        )
        try:
            assert process.stdout is not None
            await process.stdout.receive_some()
            connection = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            await connection.connect(path)
            async with trio.SocketStream(connection) as stream:
                yield Echo(process.pid, stream, *LIBRARIES[library])
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                assert process.stdout is not None
                await process.stdout.aclose()
