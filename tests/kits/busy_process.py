"""A process whose main thread does what its first argument says; run by tests.

Another thread looks into it, and prints as JSON what it sees.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
import time
from collections.abc import Callable

import trio
import trio.testing

from tests.kits.diagnostics import look_until
from trio_supervisor.diagnostics.locks.locks import lock_report
from trio_supervisor.diagnostics.profile.sampling import profile_for
from trio_supervisor.diagnostics.stacks.thread_stacks import thread_report
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop, current_main_loop
from trio_supervisor.diagnostics.tasks.report import scheduler_report
from trio_supervisor.wire.codec import to_fields

LOCK = threading.Lock()
OTHER_LOCK = threading.Lock()


def spin() -> None:
    while True:
        sum(range(100))


def sleep() -> None:
    time.sleep(3600)


def deadlock() -> None:
    held = threading.Event()

    def other() -> None:
        with OTHER_LOCK:
            held.set()
            with LOCK:
                pass

    with LOCK:
        threading.Thread(target=other, name="other", daemon=True).start()
        held.wait()
        with OTHER_LOCK:
            pass


def look(main: MainLoop, stuck: Callable[[], None]) -> None:
    """Wait until the main thread is in *stuck*, and print what is seen then."""
    look_until(
        lambda: thread_report().threads[0].frames[-1].function,
        lambda function: function == stuck.__name__,
    )
    if stuck is deadlock:
        look_until(lock_report, lambda report: report.deadlocks)
    found = {
        "threads": to_fields(thread_report()),
        "scheduler": to_fields(scheduler_report(main)),
        "locks": to_fields(lock_report()),
        "hottest": [line.function for line in profile_for(0.3).hottest()],
    }
    print(json.dumps(found), flush=True)


async def run_trio(stuck: Callable[[], None]) -> None:
    start(current_main_loop(), stuck)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever, name="patient")
        await trio.testing.wait_all_tasks_blocked()
        stuck()


async def run_asyncio(stuck: Callable[[], None]) -> None:
    start(current_main_loop(), stuck)
    patient = asyncio.create_task(asyncio.sleep(3600), name="patient")
    await asyncio.sleep(0)
    stuck()
    await patient


def start(main: MainLoop, stuck: Callable[[], None]) -> None:
    sys.setswitchinterval(1e-4)
    threading.Thread(target=look, args=(main, stuck), daemon=True).start()


def main(backend: str, name: str) -> None:
    signal.alarm(60)  # no other process would end it
    stuck = {"spin": spin, "sleep": sleep, "deadlock": deadlock}[name]
    if backend == "trio":
        trio.run(run_trio, stuck)
    elif backend == "asyncio":
        asyncio.run(run_asyncio(stuck))
    else:
        start(MainLoop(), stuck)
        stuck()


if __name__ == "__main__":
    main(*sys.argv[1:])
