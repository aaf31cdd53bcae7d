"""Getting stacks of a process that cannot run Python code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

import trio_supervisor
from trio_supervisor.process.inspection import black_box
from trio_supervisor.process.inspection.black_box import (
    DUMP_SIGNAL,
    BlackBox,
    has_handler,
    open_black_box,
    switches_of,
    threads_of,
    without_boot,
)
from trio_supervisor.testing import in_virtual_time

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memfd and /proc")

PATIENCE = 30.0
HOLDS_THE_LOCK = """
import ctypes, sys, threading, time
from trio_supervisor.process.inspection.black_box import use_black_box
use_black_box(int(sys.argv[1]))
def waits(): time.sleep(1000)
threading.Thread(target=waits, daemon=True).start()
def holds():
    sleep = ctypes.PyDLL(None).usleep
    print("ready", flush=True)
    while True: sleep(200_000_000)
holds()
"""
WANTS_THE_LOCK = """
import ctypes, os, threading
begins = threading.Event()
def wants():
    begins.set()
    while True: pass
threading.Thread(target=wants, daemon=True).start()
begins.wait()
print("ready", flush=True)
ctypes.PyDLL(None).read(os.pipe()[0], ctypes.create_string_buffer(1), 1)
"""
CRASHES = """
import ctypes, sys
from trio_supervisor.process.inspection.black_box import use_black_box
use_black_box(int(sys.argv[1]))
def falls(): ctypes.string_at(0)
falls()
"""
HAS_NONE = """
import time
print("ready", flush=True)
time.sleep(1000)
"""


@contextmanager
def running(program: str) -> Iterator[tuple[subprocess.Popen[str], BlackBox]]:
    box = open_black_box()
    assert box is not None
    with box:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(box.descriptor)],
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[box.descriptor],
        )
        with process:
            try:
                yield process, box
            finally:
                process.kill()


def wait_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


async def test_ask_returns_stacks_while_c_code_holds_the_gil() -> None:
    with running(HOLDS_THE_LOCK) as (process, box), trio.fail_after(PATIENCE):
        wait_ready(process)
        text = await box.ask(process.pid)
        assert "in holds" in text
        assert "in waits" in text
        assert process.poll() is None


def test_switches_of_grow_for_thread_waiting_for_the_gil() -> None:
    """The thread that holds the GIL makes none, which identifies it from outside."""
    with running(WANTS_THE_LOCK) as (process, _):
        wait_ready(process)
        before = switches_of(process.pid)
        assert set(before) == set(threads_of(process.pid))
        (waits,) = set(before) - {process.pid}
        end = time.monotonic() + PATIENCE
        while (now := switches_of(process.pid))[waits] < before[waits] + 200:
            assert time.monotonic() < end, f"it does not ask: {before}, {now}"
        assert now[process.pid] - before[process.pid] < 100


def test_threads_of_exited_process_is_empty() -> None:
    with running(HAS_NONE) as (process, _):
        wait_ready(process)
    assert switches_of(process.pid) == {}


async def test_ask_again_returns_only_new_stacks() -> None:
    with running(HOLDS_THE_LOCK) as (process, box), trio.fail_after(PATIENCE):
        wait_ready(process)
        first = await box.ask(process.pid)
        second = await box.ask(process.pid)
        assert second.count("in holds") == first.count("in holds") == 1


@pytest.mark.parametrize("late", [0.0, 0.2, 100.0])
@in_virtual_time
async def test_ask_waits_for_late_main_thread(late: float) -> None:
    """For a while, before the other threads are signalled."""
    box = open_black_box()
    assert box is not None
    with box, pytest.MonkeyPatch.context() as patch:
        async with trio.open_nursery() as nursery:

            async def write(seconds: float, text: bytes) -> None:
                await trio.sleep(seconds)
                os.write(box.descriptor, text)

            def ask(_process_id: int, thread: int, _number: int) -> None:
                answers = {1: (late, b"main\n"), 2: (0.0, b"other\n")}
                if thread in answers:
                    nursery.start_soon(write, *answers[thread])

            patch.setattr(black_box, "has_handler", lambda *_: True)
            patch.setattr(black_box, "threads_of", lambda _: [1, 2, 3])
            patch.setattr(black_box, "_signal_thread", ask)
            told = await box.ask(1)
            nursery.cancel_scope.cancel()
    assert told.split() == (["main", "other"] if late < 1 else ["other"])


def test_read_after_fatal_signal_has_stack() -> None:
    with running(CRASHES) as (process, box):
        assert process.wait(PATIENCE) == -signal.SIGSEGV
        assert "Segmentation fault" in box.read()
        assert "in falls" in box.read()


async def test_ask_process_without_handler_sends_no_signal() -> None:
    """The signal would kill it."""
    with running(HAS_NONE) as (process, box), trio.fail_after(PATIENCE):
        wait_ready(process)
        assert not has_handler(process.pid, DUMP_SIGNAL)
        assert await box.ask(process.pid) == ""
        assert process.poll() is None


def test_threads_of_lists_main_thread_first() -> None:
    assert threads_of(os.getpid())[0] == os.getpid()
    assert threads_of(2**22 + 1) == []


def test_close_twice_closes_no_other_file() -> None:
    box = open_black_box()
    assert box is not None
    box.close()
    other = os.open(os.devnull, os.O_RDONLY)
    box.close()
    os.close(other)


def test_without_boot_removes_outermost_frames() -> None:
    own = os.path.dirname(trio_supervisor.__file__)
    text = (
        "Current thread 0x1 (most recent call first):\n"
        '  File "/srv/app.py", line 7 in inner\n'
        f'  File "{own}/link/peer.py", line 1 in called_by_the_application\n'
        '  File "/srv/app.py", line 5 in target\n'
        f'  File "{own}/worker/runtimes.py", line 139 in run\n'
        '  File "<frozen runpy>", line 88 in _run_code\n'
        "\n"
        "Thread 0x2 (most recent call first):\n"
        f'  File "{own}/worker/agent.py", line 102 in _run\n'
    )
    assert without_boot(text).splitlines() == [
        "Current thread 0x1 (most recent call first):",
        '  File "/srv/app.py", line 7 in inner',
        f'  File "{own}/link/peer.py", line 1 in called_by_the_application',
        '  File "/srv/app.py", line 5 in target',
        "",
        "Thread 0x2 (most recent call first):",
    ]
