"""Writing to slow, blocked and failing destinations: real pipes and devices."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.kits.output import notice, open_destination, open_pipe, read_until
from trio_supervisor.process.output.destination import Destination

LINE = 99 * b"x" + b"\n"
# More than a pipe holds, and than a thread has in its hands.
MANY = 10_000


def read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def refusing(
    on_problem: Callable[[OSError | None], None] = print, **options: Any
) -> Destination:
    return Destination(
        os.open("/dev/full", os.O_WRONLY),
        notice,
        is_owner=True,
        on_problem=on_problem,
        **options,
    )


async def test_put_writes_in_order() -> None:
    """From any thread."""
    with open_destination() as (destination, reading):
        for number in range(1000):
            destination.put(b"%d\n" % number)
        destination.put(memoryview(b"last\n"))
        data = await read_until(reading, b"last\n")
    assert data.split() == [*(b"%d" % number for number in range(1000)), b"last"]
    assert destination.lost == 0


async def test_put_full_queue_drops_oldest_lines() -> None:
    """Whole lines are dropped, and a notice counts them once writing continues."""
    with open_destination(limit=50_000) as (destination, reading):
        for number in range(MANY):
            destination.put(b"%099d\n" % number)
        destination.put(b"last\n")
        lines = (await read_until(reading, b"last\n")).splitlines()
    due = 0
    for line in lines[:-1]:
        if match := re.fullmatch(rb"<(\d+) dropped>", line):
            due += int(match[1])
        else:
            assert int(line) == due
            due += 1
    assert due == MANY
    assert MANY / 2 < destination.lost < MANY
    assert len(lines) > 500  # what the queue holds


async def test_send_slows_down_to_a_slow_destination() -> None:
    """Nothing is dropped."""
    with open_destination(limit=10_000, send_timeout=30) as (destination, reading):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for _ in range(MANY):
                    await destination.send(LINE)
                await destination.send(b"last\n")

            nursery.start_soon(send)
            data = await read_until(reading, b"last\n")
    assert data == MANY * LINE + b"last\n"
    assert destination.lost == 0


async def test_send_to_blocked_destination_waits_once() -> None:
    """It does not wait again for each block until half of the queue is written."""
    with open_destination(limit=10_000, send_timeout=0.2) as (destination, _):
        began = trio.current_time()
        for _ in range(MANY):
            await destination.send(LINE)
        assert 0.2 <= trio.current_time() - began < 5
        assert destination.lost > MANY / 2


async def test_send_waits_again_after_recovery() -> None:
    """Earlier drops do not cause later ones."""
    with open_destination(limit=10_000, send_timeout=0) as (destination, reading):
        for _ in range(MANY):
            await destination.send(LINE)
        destination.put(b"last\n")
        await read_until(reading, b"last\n")
        await destination.flush()
        lost, destination.send_timeout = destination.lost, 30
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_until, reading, b"end\n")
            for _ in range(MANY):
                await destination.send(LINE)
            await destination.send(b"end\n")
        assert destination.lost == lost


async def test_send_cancelled_is_still_written() -> None:
    """There is no other copy of output that was read from a child."""
    with open_destination(limit=300_000, send_timeout=30) as (destination, reading):
        for count in 600, 2990:  # almost the pipe, almost the queue
            await destination.flush()
            for _ in range(count):
                destination.put(LINE)
        with trio.move_on_after(0) as scope:
            await destination.send(9000 * b"y" + b"\nlast\n")
        assert scope.cancelled_caught
        assert (await read_until(reading, b"last\n")).endswith(b"yy\nlast\n")


async def test_flush_waits_until_everything_is_written() -> None:
    with open_destination() as (destination, reading):
        for _ in range(3000):
            destination.put(LINE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_until, reading, b"last\n")
            destination.put(b"last\n")
            await destination.flush()
        os.set_blocking(reading, False)
        with pytest.raises(BlockingIOError):
            os.read(reading, 1)
        await destination.flush()


async def test_flush_of_blocked_destination_can_be_cancelled() -> None:
    """`drain` returns after its timeout."""
    with open_destination() as (destination, _):
        for _ in range(3000):
            destination.put(LINE)
        with trio.move_on_after(0.05) as scope:
            await destination.flush()
        assert scope.cancelled_caught
        assert not destination.drain(0.05)


async def test_write_to_nonblocking_descriptor_waits() -> None:
    """A process that shares the terminal may have set O_NONBLOCK."""
    problems: list[OSError | None] = []
    with open_destination(on_problem=problems.append) as (destination, reading):
        os.set_blocking(destination.descriptor, False)
        for _ in range(MANY):
            destination.put(LINE)
        destination.put(b"last\n")
        assert await read_until(reading, b"last\n") == MANY * LINE + b"last\n"
    assert problems == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
async def test_write_refused_by_full_disk_is_retried(
    tmp_path: Path,
) -> None:
    """The failure and the recovery are each reported once."""
    problems: list[OSError | None] = []
    destination = refusing(problems.append)
    for number in range(1000):
        destination.put(b"%d\n" % number)
        await destination.flush()  # does not wait for a disk to become less full
    assert [type(problem) for problem in problems] == [OSError]
    path = tmp_path / "file"
    destination.replace(os.open(path, os.O_WRONLY | os.O_CREAT))
    await destination.flush()
    assert path.read_text().split() == [str(number) for number in range(1000)]
    assert problems[1:] == [None]
    destination.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
async def test_send_to_failing_destination_does_not_wait() -> None:
    """A disk may be full for days."""
    destination = refusing(limit=1000, send_timeout=3600)
    with trio.fail_after(30):
        destination.put(LINE)
        await destination.flush()
        for _ in range(100):
            await destination.send(LINE)
    assert destination.lost > 80
    destination.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
async def test_close_of_failing_destination_drops_lines() -> None:
    """The thread exits as well."""
    destination = refusing()
    destination.put(b"one\ntwo\n")
    await destination.flush()
    thread = destination._thread
    assert thread is not None
    destination.close()
    await trio.to_thread.run_sync(thread.join)
    assert destination.lost == 2
    destination.put(b"three\n")
    assert destination.lost == 3


async def test_close_writes_queue_and_closes_descriptor() -> None:
    """The reader gets end-of-file."""
    with open_pipe() as (reading, writing):
        destination = Destination(os.dup(writing), notice, is_owner=True)
        os.close(writing)
        for _ in range(MANY):
            destination.put(LINE)
        destination.close()
        data = await trio.to_thread.run_sync(read_all, os.dup(reading))
    assert data == MANY * LINE


def test_close_of_unused_destination_closes_descriptor() -> None:
    """It starts no thread."""
    with open_pipe() as (reading, writing):
        threads = threading.active_count()
        Destination(os.dup(writing), notice, is_owner=True).close()
        os.close(writing)
        assert os.read(reading, 1) == b""
        assert threading.active_count() == threads


async def test_idle_thread_exits_and_is_restarted_on_demand() -> None:
    """Even if a line arrives while the thread exits."""
    with open_destination(idle=0.0) as (destination, reading):
        for number in range(3000):
            line = b"%d\n" % number
            destination.put(line)
            assert destination.drain(30)
            assert os.read(reading, 100) == line
            thread = destination._thread
            if thread is not None and number % 10 == 0:
                await trio.to_thread.run_sync(thread.join)


FORKING = """
import os, threading
from trio_supervisor.process.output.destination import Destination

reading, writing = os.pipe()
destination = Destination(writing, lambda count: b"dropped\\n")
for number in range(3000):
    destination.put(b"%099d\\n" % number)
is_held, may_go = threading.Event(), threading.Event()

def hold():
    with destination._changed:
        is_held.set()
        may_go.wait()

threading.Thread(target=hold).start()
is_held.wait()
child = os.fork()  # at the worst moment: another thread has the lock
if child == 0:
    os.close(reading)
    destination.put(b"child\\n")
    os._exit(not destination.drain(60))
may_go.set()
data = b""
while data.count(b"\\n") < 3001:
    data += os.read(reading, 65536)
assert os.waitpid(child, 0)[1] == 0
# A pipe takes long writes in pieces: its line may be within one of the others.
assert data.count(b"child\\n") == 1
lines = data.replace(b"child\\n", b"").split()
assert [int(line) for line in lines] == list(range(3000))
"""


def test_forked_child_writes_only_its_own_lines() -> None:
    """It has no thread, and does not write lines queued by its parent."""
    command = [sys.executable, "-W", "ignore", "-c", FORKING]
    subprocess.run(command, check=True, timeout=60)


def test_begin_starts_the_thread_in_advance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lines are written even if no thread can be started later."""
    read, write = os.pipe()
    try:
        destination = Destination(write, lambda _: b"", idle=None)
        destination.begin()
        monkeypatch.setattr(threading.Thread, "start", _no_thread)
        destination.put(b"line\n")
        assert os.read(read, 100) == b"line\n"
        destination.close()
    finally:
        os.close(read)
        os.close(write)


def test_drain_retries_to_start_the_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, write = os.pipe()
    try:
        destination = Destination(write, lambda _: b"")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", _no_thread)
            destination.put(b"line\n")
        assert destination.drain(30.0)
        assert os.read(read, 100) == b"line\n"
        destination.close()
    finally:
        os.close(read)
        os.close(write)


def _no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
