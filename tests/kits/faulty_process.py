"""Run a process with a planted fault that a doctor in another thread examines.

``python -m tests.kits.faulty_process trio|asyncio|sync FAULT`` prints the diagnosis as
JSON, with the progress reports as ``progress``. Comments name the faulty lines, such as
``# LEAK``.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any

import orjson
import trio

from tests.kits.diagnostics import look_until
from trio_supervisor.diagnostics.locks.locks import lock_report
from trio_supervisor.diagnostics.memory.memory_lock import acquire_memory_lock
from trio_supervisor.diagnostics.profile.garbage import GarbageProfiler
from trio_supervisor.diagnostics.tasks.loop_stalls import StallWatch
from trio_supervisor.diagnostics.tasks.main_loop import (
    MainLoop,
    current_main_loop,
    find_main_loop,
)
from trio_supervisor.wire.codec import to_fields
from trio_supervisor.worker.doctor.examine import examine

DURATION = 2.0
NAP = 0.01
HELD: list[Any] = []  # LEAK
OPEN: list[Any] = []
BUFFER = bytearray()  # BUFFER
NUMBERS = itertools.count()
CONTEXT: ContextVar[list[Any]] = ContextVar("CONTEXT")  # CONTEXT
LOCK = threading.Lock()
OTHER_LOCK = threading.Lock()


def idle() -> None:
    """Nothing to do."""


def busy() -> None:
    """Much work, and much garbage."""
    rows = [[str(number) * 3, str(number)] for number in range(2_000)]
    rows.sort()


def leak() -> None:
    HELD.extend([str(number)] for number in range(time.monotonic_ns() % 7, 60))


@functools.cache  # CACHED
def cached(number: int) -> list[str]:
    return [str(number)]


def leak_in_cache() -> None:
    for _ in range(60):
        cached(next(NUMBERS))


def leak_in_context() -> None:
    if CONTEXT.get(None) is None:
        CONTEXT.set([])
    CONTEXT.get().extend([str(next(NUMBERS))] for _ in range(60))


def grow() -> None:
    BUFFER.extend(b"." * 200_000)


def stuck() -> None:
    time.sleep(3600)  # STUCK


def spin() -> None:
    while True:
        sum(range(100))  # SPIN


def spin_among_many() -> None:
    """Threads that all want the GIL."""
    for _ in range(8):
        start_thread(spin, "another")
    spin()


def lag() -> None:
    time.sleep(0.4)  # LAG


def descriptors() -> None:
    OPEN.append(os.open("/dev/null", os.O_RDONLY))


def hung_up() -> None:
    if not OPEN:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            for _ in range(30):
                client = socket.create_connection(listener.getsockname())
                OPEN.append(listener.accept()[0])
                client.close()


def garbage() -> None:
    if not HELD:
        HELD.extend([number] for number in range(200_000))
    gc.collect()  # GARBAGE


def start_thread(target: Callable[[], object], name: str) -> None:
    threading.Thread(target=target, name=name, daemon=True).start()


def threads() -> None:
    time.sleep(0.02)
    start_thread(lambda: time.sleep(3600), "one of many")  # THREADS


def held_lock() -> None:
    taken = threading.Event()

    def hold() -> None:
        with LOCK:  # HOLDER
            taken.set()
            time.sleep(3600)

    start_thread(hold, "hoarder")
    taken.wait()
    LOCK.acquire()  # WAITS


def deadlock() -> None:
    taken = threading.Event()

    def other() -> None:
        with OTHER_LOCK:
            taken.set()
            with LOCK:
                pass

    with LOCK:
        start_thread(other, "other")
        taken.wait()
        with OTHER_LOCK:  # DEADLOCK
            pass


def distant_deadlock() -> None:
    """Of two other threads."""
    if threading.active_count() < 4:
        barrier = threading.Barrier(2)

        def take(first: threading.Lock, second: threading.Lock) -> None:
            with first:
                barrier.wait()
                with second:
                    pass

        start_thread(lambda: take(LOCK, OTHER_LOCK), "left")
        start_thread(lambda: take(OTHER_LOCK, LOCK), "right")


def memory() -> None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[1]
    if not HELD:
        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + 2**30, limit))
    HELD.append(b"." * 2**18)


def sampled() -> None:
    """Another memory sample and garbage profile are running."""
    if not HELD:
        HELD.append(acquire_memory_lock("memory sample"))
        HELD.append(GarbageProfiler())
        HELD[-1].start()


WAITS = {held_lock: 1, deadlock: 2, distant_deadlock: 2}
"""How many threads wait for a lock when the fault is there."""


class ExaminedWorker:
    """Stands in for the worker that the doctor examines."""

    def __init__(self, main: MainLoop | None) -> None:
        self._main = main

    @property
    def main(self) -> MainLoop:
        """The given loop, or one that is found by its stack."""
        return self._main if self._main is not None else find_main_loop()

    def held(self) -> AbstractContextManager[None]:
        return nullcontext()

    def slow_tasks(self) -> Mapping[str, object]:
        """Nothing."""
        return to_fields(StallWatch(MainLoop()).report())

    def stop_checks(self) -> int:
        return 0


class Caller:
    """Collects progress reports."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def progress(self, fields: Mapping[str, object]) -> None:
        """Store one report."""
        self.heard.append(fields["progress"])


def diagnose(main: MainLoop | None) -> None:
    """Examine, print the diagnosis, and exit; in the doctor's thread."""
    try:
        caller = Caller()
        fields = trio.run(examine, ExaminedWorker(main), caller, DURATION)
        sys.stdout.buffer.write(orjson.dumps({**fields, "progress": caller.heard}))
        sys.stdout.flush()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def begin(step: Callable[[], None], main: MainLoop | None) -> Callable[[], None]:
    """Return *step*; the doctor comes when it is done once, or has begun to block."""
    is_begun = threading.Event()

    def wait_and_diagnose() -> None:
        is_begun.wait()
        look_until(lambda: len(lock_report().waits), WAITS.get(step, 0).__le__)
        diagnose(main)

    def begin_step() -> None:
        if step in (stuck, spin, spin_among_many, held_lock, deadlock):
            is_begun.set()
        step()
        is_begun.set()

    sys.setswitchinterval(1e-4)
    start_thread(wait_and_diagnose, "doctor")
    return begin_step


async def run_trio(step: Callable[[], None]) -> None:
    step = begin(step, current_main_loop())
    async with trio.open_nursery() as nursery:
        while True:
            if "tasks" in sys.argv:
                nursery.start_soon(trio.sleep_forever)
            step()
            await trio.sleep(NAP)


async def run_asyncio(step: Callable[[], None]) -> None:
    step = begin(step, current_main_loop())
    kept = []
    while True:
        if "tasks" in sys.argv:
            kept.append(asyncio.create_task(asyncio.sleep(3600)))
        step()
        await asyncio.sleep(NAP)


def run_sync(step: Callable[[], None]) -> None:
    step = begin(step, None)
    while True:
        step()
        time.sleep(NAP)


def main(backend: str, fault: str) -> None:
    signal.alarm(60)  # no other process would end it
    step = idle if fault == "tasks" else globals()[fault]
    match backend:
        case "trio":
            trio.run(run_trio, step)
        case "asyncio":
            asyncio.run(run_asyncio(step))
        case _:
            run_sync(step)


if __name__ == "__main__":
    main(*sys.argv[1:])
