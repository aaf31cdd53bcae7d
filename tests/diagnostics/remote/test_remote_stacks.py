"""Stacks of other processes, read from their memory, while they go on undisturbed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType

import pytest

from trio_supervisor.diagnostics.remote.interpreter_layout import Layout
from trio_supervisor.diagnostics.remote.memory_reader import (
    MemoryReader,
    interpreter_shift,
)
from trio_supervisor.diagnostics.remote.remote_stacks import (
    RemoteThread,
    UnreadableError,
    checked_layout,
    line_at,
    read_stacks,
)
from trio_supervisor.diagnostics.snapshot import snapshot
from trio_supervisor.diagnostics.stacks import text_tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc/PID/mem")

SLEEPS_WITH_THE_GIL = """
import ctypes, threading
sleep = ctypes.PyDLL(None).sleep
is_there = threading.Event()
class Größe:
    def waits(self):
        is_there.set()
        threading.Event().wait()
def sleeps():
    print("ready", flush=True)
    # C code between two Python functions, and a line that is far from the first.
    sorted([0], key=lambda _: sleep(3))
    print("slept", flush=True)
async def within():
    sleeps()
def yields():
    try:
        within().send(None)
    except StopIteration:
        yield
threading.Thread(target=Größe().waits, daemon=True).start()
is_there.wait()
next(yields())
"""
RUNS = """
def spins():
    print("ready", flush=True)
    while True:
        sum([1, 2, 3])
spins()
"""


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_stacks_are_read_while_c_code_sleeps_with_the_gil() -> None:
    """And the sleep, which no signal may interrupt, goes on to its end."""
    with running(sys.executable, "-c", SLEEPS_WITH_THE_GIL) as process:
        found: dict[int, RemoteThread] = {}
        lines = list[int | None]()
        while lines != [12, 15, 18, 23]:  # it is a moment before it sleeps
            found = {t.native_id: t for t in read_stacks(process.pid).threads}
            main = found.pop(process.pid)
            lines = [location.line for location in main.locations[-4:]]
        assert process.stdout is not None
        (other,) = found.values()
        assert [location.function for location in main.locations[-4:]] == [
            "sleeps",
            "within",
            "yields",
            "<module>",
        ]
        names = [location.function for location in other.locations]
        assert "Größe.waits" in names
        assert process.stdout.readline() == "slept\n"


def test_read_stacks_of_moving_thread() -> None:
    with running(sys.executable, "-c", RUNS) as process:
        for _ in range(20):
            (thread,) = read_stacks(process.pid).threads
            if not thread.is_moving:
                assert [location.function for location in thread.locations] == [
                    "spins",
                    "<module>",
                ]


def test_read_stacks_of_other_program_is_refused() -> None:
    with running("sh", "-c", "echo ready; read line") as process:
        assert interpreter_shift(process.pid) is None
        with pytest.raises(UnreadableError, match="another interpreter"):
            read_stacks(process.pid)


def test_read_stacks_of_exited_process_is_refused() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(UnreadableError):
        read_stacks(process.pid)


def test_layout_of_this_interpreter_is_known() -> None:
    assert isinstance(checked_layout(), Layout)


def test_read_of_unmapped_address_fails() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with process, MemoryReader(process.pid) as memory:
        for address in (0, 8, 1 << 63):
            with pytest.raises(OSError, match=r"memory|error"):
                memory.read(address, 8)
        process.kill()


def code_objects(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from code_objects(constant)


@pytest.mark.parametrize("module", [asyncio.base_events, snapshot, text_tree, pytest])
def test_line_at_agrees_with_python(module: object) -> None:
    path = str(module.__file__)  # type: ignore[attr-defined]  # a module has one
    with open(path, encoding="utf-8") as file:
        top = compile(file.read(), path, "exec")
    for code in code_objects(top):
        for number, (line, *_) in enumerate(code.co_positions()):
            if line is not None:
                found = line_at(code.co_linetable, code.co_firstlineno, 2 * number)
                assert found == line, (code, number)
