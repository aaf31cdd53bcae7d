"""Pipes, blocks and processes for the tests of what children print."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import trio

from trio_supervisor.process.output.blocks import Block, Origin, Stream
from trio_supervisor.process.output.destination import Destination
from trio_supervisor.process.output.hub import ChildOutput

WORKER = Origin(name="worker.0", process_id=4711, generation=2, incarnation=3)


def block(
    data: bytes,
    *,
    time: float = 1.5,
    origin: Origin = WORKER,
    stream: Stream = "stdout",
    is_cut: bool = False,
    is_continued: bool = False,
) -> Block:
    return Block(time, origin, stream, data, is_cut, is_continued)


@contextmanager
def open_pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose ends the test may close on its own."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            with suppress(OSError):
                os.close(end)


def notice(count: int) -> bytes:
    return b"<%d dropped>\n" % count


@contextmanager
def open_destination(
    notice: Callable[[int], bytes] = notice, **options: Any
) -> Iterator[tuple[Destination, int]]:
    """A destination, and the end of the pipe to read what is written to it."""
    reading, writing = os.pipe()
    destination = Destination(writing, notice, is_owner=True, **options)
    try:
        yield destination, reading
    finally:
        destination.close()
        with suppress(OSError):
            os.close(reading)
        if (thread := destination._thread) is not None:
            thread.join()


async def read_until(descriptor: int, end: bytes) -> bytes:
    """Read until *end* is there, in a thread."""
    data = b""
    while end not in data:
        more = await trio.to_thread.run_sync(os.read, descriptor, 1024 * 1024)
        assert more, data[-1000:]
        data += more
    return data


@asynccontextmanager
async def open_python(
    program: str, output: ChildOutput, words: Sequence[str] = ()
) -> AsyncIterator[trio.Process]:
    """A Python that runs *program* and prints into *output*."""
    stdout, stderr = output.descriptors
    process = await trio.lowlevel.open_process(
        [sys.executable, "-S", "-c", program, *words], stdout=stdout, stderr=stderr
    )
    try:
        output.started(process.pid)
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def run_python(program: str, output: ChildOutput, *words: str) -> int:
    """Run *program* to its end, and take what it printed."""
    async with open_python(program, output, words) as process:
        returncode = await process.wait()
    output.finish()
    return returncode


def open_descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))
