"""Inspecting processes from outside, in order of intrusiveness."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from trio_supervisor.process.inspection import inspection
from trio_supervisor.process.inspection.black_box import BlackBox, open_black_box
from trio_supervisor.process.inspection.inspection import describe, inspect_process
from trio_supervisor.process.inspection.kernel_threads import ThreadView, view_threads

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc")

BEGINS = """
import ctypes, os, sys, time
from trio_supervisor.process.inspection.black_box import use_black_box
use_black_box(int(sys.argv[1]))
c = ctypes.PyDLL(None)
class Poll(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("r", ctypes.c_short)]
read, write = os.pipe()
def works():
    print("ready", flush=True)
"""
CALLS = ("clock_nanosleep", "nanosleep", "poll", "ppoll")
SLEEPS = BEGINS + "    return c.sleep(2)\nprint('left', works(), flush=True)"
POLLS = BEGINS + (
    "    return c.poll(ctypes.byref(Poll(read, 1, 0)), 1, 2000)\n"
    "print('left', works(), flush=True)"
)
READS = BEGINS + "    return c.read(read, ctypes.create_string_buffer(1), 1)\nworks()"
SPINS = BEGINS + "    while True: pass\nworks()"


@contextmanager
def running(program: str) -> Iterator[tuple[subprocess.Popen[str], BlackBox]]:
    box = open_black_box()
    assert box is not None
    with (
        box,
        subprocess.Popen(
            [sys.executable, "-c", program, str(box.descriptor)],
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[box.descriptor],
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process, box
        finally:
            process.kill()


async def wait_for_call(process_id: int, *calls: str) -> None:
    with trio.fail_after(30):
        while view_threads(process_id)[0].call not in calls:  # noqa: ASYNC110
            await trio.sleep(0.01)


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the memory of other processes unreadable, as on a hardened system."""
    monkeypatch.setattr(inspection, "_read", lambda _: "its memory cannot be read: no")


@pytest.mark.parametrize("program", [SLEEPS, POLLS], ids=["sleep", "poll"])
async def test_inspect_process_interrupts_no_c_code(program: str) -> None:
    """sleep and poll are not restarted after a signal."""
    with running(program) as (process, box):
        await wait_for_call(
            process.pid, "clock_nanosleep", "nanosleep", "poll", "ppoll"
        )
        for _ in range(5):
            seen = await inspect_process(process.pid, box)
            assert seen.way == "memory"
            assert f"Main thread {process.pid}, sleeping in" in seen.text
            assert "in works" in seen.text
        assert process.stdout is not None
        assert process.stdout.readline() == "left 0\n"  # of its time


@pytest.mark.usefixtures("unreadable")
@pytest.mark.parametrize("program", [SLEEPS, POLLS], ids=["sleep", "poll"])
async def test_inspect_process_skips_threads_in_unrestartable_calls(
    program: str,
) -> None:
    with running(program) as (process, box):
        await wait_for_call(
            process.pid, "clock_nanosleep", "nanosleep", "poll", "ppoll"
        )
        seen = await inspect_process(process.pid, box)
        assert seen.way == "threads"
        assert "since its memory cannot be read: no" in seen.text
        assert "this could interrupt the call" in seen.text
        assert process.stdout is not None
        assert process.stdout.readline() == "left 0\n"


@pytest.mark.usefixtures("unreadable")
@pytest.mark.parametrize("program", [READS, SPINS], ids=["restarted", "running"])
async def test_inspect_process_signals_last_and_reports_it(program: str) -> None:
    with running(program) as (process, box):
        await wait_for_call(process.pid, "read" if program == READS else "")
        seen = await inspect_process(process.pid, box)
        assert seen.way == "faulthandler"
        assert seen.text.startswith("(stacks written by faulthandler after a signal, s")
        assert "in works" in seen.text
        assert process.poll() is None


@pytest.mark.usefixtures("unreadable")
async def test_inspect_process_exiting_process_keeps_result() -> None:
    """Its black box is closed during the wait."""
    with running(SPINS) as (process, box):
        await wait_for_call(process.pid, "")
        seen: list[inspection.Inspection] = []

        async def see() -> None:
            seen.append(await inspect_process(process.pid, box))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(see)
            with trio.fail_after(30):
                while not box.read():  # noqa: ASYNC110  # it is written elsewhere
                    await trio.sleep(0.001)
            process.kill()
            box.close()
        assert "in works" in seen[0].text


async def test_inspect_process_stopped_process_is_not_signalled() -> None:
    with running(SPINS) as (process, box):
        os.kill(process.pid, signal.SIGSTOP)
        with trio.fail_after(30):
            while view_threads(process.pid)[0].state != "T":  # noqa: ASYNC110
                await trio.sleep(0.001)
        seen = await inspect_process(process.pid, box)
        assert seen.way == "kernel"
        assert "SIGSTOP" in seen.text


async def test_inspect_process_of_command_has_kernel_states() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:  # noqa: ASYNC220
        await wait_for_call(process.pid, "clock_nanosleep", "nanosleep")
        seen = await inspect_process(process.pid, None)
        process.kill()
    assert seen.way == "threads"
    assert "another interpreter" in seen.text
    assert f"Main thread {process.pid}, sleeping in" in seen.text


async def test_inspect_process_of_exited_process_is_empty() -> None:
    process = subprocess.Popen(["true"])  # noqa: ASYNC220
    process.wait()
    assert (await inspect_process(process.pid, None)).way == ""


def test_describe_forked_main_thread_with_number_of_parent() -> None:
    views = [
        ThreadView(number=7, is_main=True, state="S", call="futex"),
        ThreadView(number=8, is_main=False, state="R"),
        ThreadView(number=9, is_main=False, state="S", call="futex"),
    ]
    text = describe({3: ['  File "/a.py", line 1 in main'], 8: ["  File other"]}, views)
    assert text == (
        "Main thread 7, sleeping in futex (most recent call first):\n"
        '  File "/a.py", line 1 in main\n'
        "\n"
        "Thread 8, running (most recent call first):\n"
        "  File other\n"
        "\n"
        "Threads without Python code: 1 sleeping in futex"
    )
