"""Measure the rate at which a worker prints through the controller into a file."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio
from attrs import define, field

from benchmarks.clock import now
from benchmarks.frame import Frame, percentile
from trio_supervisor.process.output.hub import OutputHub, open_output_hub

_FLOOR: Final = "pipe to file in one thread"
_LOOK: Final = 1.0
"""Interval at which the event loop is sampled [ms]."""
_WIDE: Final = 1024 * 1024
_READ: Final = 256 * 1024

_PRINTER: Final = """
import os, sys
os.write(0, b"r")
os.read(0, 1)
block = (b"x" * 99 + b"\\n") * 655
left = int(sys.argv[1])
while left > 0:
    left -= os.write(1, block)
"""


async def run(frame: Frame) -> None:
    """Measure the rate against a plain loop, and the delay of the event loop."""
    size = frame.options.count(768, quick=16) * 1024 * 1024
    delays = _Delays()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        path = Path(directory, "printed")
        async with open_output_hub() as hub:

            async def pump() -> float:
                return await _pump(hub, path, size, delays)

            async def copy() -> float:
                return _copy(path, size)

            name = "pump: one worker to a file"
            taken = await frame.take({_FLOOR: copy, name: pump})
            frame.add(name, taken, unit="MB/s", floor=_FLOOR)
    for what, samples in {"p99": delays.p99, "worst": delays.worst}.items():
        name = f"pump: delay of the event loop, {what}"
        frame.add(name, {name: tuple(samples)}, note="of each run")


async def _pump(hub: OutputHub, path: Path, size: int, delays: _Delays) -> float:
    """Return the rate from the first byte until everything is in the file [MB/s]."""
    with hub.open("printer", stdout=str(path)) as output:
        stdout, stderr = output.descriptors
        with _printer(size, stdout, stderr) as printer:
            pidfd = os.pidfd_open(printer.process_id)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(delays.watch)
                await trio.sleep(2 * _LOOK / 1000)
                output.started(printer.process_id)
                began = printer.go()
                await trio.lowlevel.wait_readable(pidfd)
                output.finish()
                await hub.flush()
                seconds = (now() - began) / 1000
                nursery.cancel_scope.cancel()
            os.close(pidfd)
    delays.end()
    return _rate(hub, path, seconds)


def _rate(hub: OutputHub, path: Path, seconds: float) -> float:
    size = path.stat().st_size
    hub.forget("printer")
    path.unlink()
    return size / 1e6 / seconds


def _copy(path: Path, size: int) -> float:
    """Return the rate of a loop that only copies [MB/s]."""
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, _WIDE)
    with (
        path.open("ab", buffering=0) as file,
        os.fdopen(reading, "rb", 0) as source,
        _printer(size, writing, writing) as printer,
    ):
        os.close(writing)
        began = printer.go()
        copied = 0
        while data := source.read(_READ):
            copied += file.write(data)
        seconds = (now() - began) / 1000
    path.unlink()
    return copied / 1e6 / seconds


@contextmanager
def _printer(size: int, stdout: int, stderr: int) -> Iterator[_Printer]:
    """Run a process that starts printing on request."""
    words = [sys.executable, "-S", "-c", _PRINTER, str(size)]
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        subprocess.Popen(
            words, stdin=theirs.fileno(), stdout=stdout, stderr=stderr
        ) as process,
    ):
        ours.recv(1)
        yield _Printer(process.pid, ours)


@define(eq=False)
class _Printer:
    process_id: int
    _control: socket.socket

    def go(self) -> float:
        """Make it print; return the time [ms]."""
        self._control.send(b"g")
        return now()


@define(eq=False)
class _Delays:
    """Delays of a task that is due every millisecond [ms]."""

    p99: list[float] = field(factory=list, init=False)
    worst: list[float] = field(factory=list, init=False)
    _current: list[float] = field(factory=list, init=False)

    async def watch(self) -> None:
        while True:
            asked = now()
            await trio.sleep(_LOOK / 1000)
            self._current.append(now() - asked - _LOOK)

    def end(self) -> None:
        """Add the figures of one run."""
        self.p99.append(percentile(self._current, 99))
        self.worst.append(max(self._current))
        self._current.clear()
